"""Films put together at random, of which every picture and every tenth of a second of sound can be read off."""
