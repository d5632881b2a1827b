"""Whether sources are still online, asked without downloading and as cheaply as it can be.

YouTube's Data API answers for 50 videos at a time (`videos.list`, one unit of quota a call), where a key is given;
oEmbed answers for one, without a key. Both say only yes: what they do not vouch for is asked of yt-dlp, which learns
the reason. Other URLs get a HEAD request.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mbt.pipeline import secret, storage, youtube
from mbt.pipeline.bounds import Bounds
from mbt.pipeline.breaker import Breaker
from mbt.pipeline.budget import Budget
from mbt.pipeline.download import ASK_TIME_LIMIT_S, head
from mbt.pipeline.exchange import Exchange
from mbt.pipeline.fetch import store_failure
from mbt.pipeline.hosts import PUBLIC, Hosts, named_in
from mbt.pipeline.outcomes import Failure, FetchError, StopError, internal_error
from mbt.pipeline.proxies import AllRestingError, Proxies
from mbt.pipeline.sources import is_url
from mbt.schemas import own_json
from mbt.schemas.clip import Outcome

BATCH = 50  # videos in one call of the Data API
_OEMBED = "https://www.youtube.com/oembed"
_DATA_API = "https://www.googleapis.com/youtube/v3/videos"
_SERVICES = Hosts(named=named_in(_OEMBED, _DATA_API))  # a network may have addresses of its own for them
_MAX_ANSWER_BYTES = 4 << 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answer:
    """What became of one question.

    Attributes:
      source: that was asked for.
      failure: why it is not there, or None.
      by: who answered.
    """

    source: str
    failure: Failure | None
    by: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Asker:
    """What all questions of a worker process share.

    Attributes:
      youtube: how yt-dlp asks.
      api_key: of the Data API, or None.
      budget: of this machine.
      proxies: to rotate.
      breaker: of the run.
      hosts: where URLs may lead.
      time_limit_s: of one question.
    """

    youtube: youtube.Settings
    api_key: str | None
    budget: Budget
    proxies: Proxies
    breaker: Breaker
    hosts: Hosts = PUBLIC
    time_limit_s: float = ASK_TIME_LIMIT_S

    def ask(self, sources: Sequence[str], failing: Mapping[str, str]) -> Iterator[Answer]:
        """Asks for sources, `BATCH` of them at most; none is yielded for those that the run's end left unasked.

        Args:
          sources: to ask for.
          failing: outcomes of those that are expected to fail, as the breaker takes them.
        """
        videos = {source: video for source in sources if (video := youtube.video_id(source))}
        try:
            vouched = self._by_data_api(sorted(set(videos.values()))) if self.api_key else frozenset()
            for source in sources:
                if self.breaker.tripped(source) is not None:
                    continue
                if videos.get(source) in vouched:
                    yield Answer(source=source, failure=None, by="YouTube Data API")
                    continue
                answer = self._answer_or_error(source, videos.get(source))
                self._heard(answer, failing.get(source, ""))
                yield answer
        except StopError as error:
            self.breaker.trip(str(error))

    def _answer_or_error(self, source: str, video: str | None) -> Answer:
        try:
            return self._answer(source, video)
        except StopError:
            raise
        except Exception as error:  # one source's trouble must not end the others
            return Answer(source=source, failure=internal_error(error), by="")

    def _answer(self, source: str, video: str | None) -> Answer:
        if video is not None and not self.api_key and self._by_oembed(video):
            answer = Answer(source=source, failure=None, by="oEmbed")
        elif video is not None:
            answer = Answer(source=source, failure=self._failure(video), by="yt-dlp")
        elif is_url(source):
            with self.budget.download():
                failure = head(source, self._proxy(), self.hosts, self.time_limit_s)
            if failure is not None and failure.outcome == Outcome.INVALID:  # nobody was asked
                failure = dataclasses.replace(failure, outcome=Outcome.TRANSIENT)
            answer = Answer(source=source, failure=failure, by="HEAD")
        else:
            missing = Failure(outcome=Outcome.GONE, reason="missing", detail="no such file", tries=1)
            try:
                answer = Answer(source=source, failure=None if storage.exists(source) else missing, by="storage")
            except storage.errors() as error:
                answer = Answer(source=source, failure=store_failure(error), by="storage")
        return answer

    def _heard(self, answer: Answer, known: str) -> None:
        """Tells the breaker."""
        failure = answer.failure
        if failure is None:
            self.breaker.record(answer.source, Outcome.OK, "", "")
        else:
            self.breaker.record(answer.source, failure.outcome, failure.reason, failure.detail, known)

    def _failure(self, video: str) -> Failure | None:
        with self.budget.download(paced=True):
            proxy = self._proxy()
            try:
                youtube.ask(video, self.youtube, proxy)
            except FetchError as error:
                if error.failure.outcome == Outcome.BLOCKED:
                    self.proxies.rest(proxy, error.failure.retry_after_s)
                return error.failure
        return None

    def _by_oembed(self, video: str) -> bool:
        """Whether oEmbed vouches for it; a video that may not be embedded is there too, so a no is none."""
        page = f"https://www.youtube.com/watch?v={video}"
        with self.budget.download():
            return self._get(_OEMBED, {"url": page, "format": "json"}) is not None

    def _by_data_api(self, videos: list[str]) -> frozenset[str]:
        """Of at most `BATCH` videos, those that are public or unlisted, and processed."""
        found: set[str] = set()
        for first in range(0, len(videos), BATCH):
            batch = videos[first : first + BATCH]
            answer = self._get(_DATA_API, {"part": "status", "id": ",".join(batch), "key": self.api_key})
            found.update(_online(answer))  # quota spent, or no answer: yt-dlp is asked
        return frozenset(found)

    def _get(self, url: str, parameters: dict) -> Any:
        """A service's answer; None where it gave none, or no JSON, as a network's login page is."""
        try:
            with (
                Bounds(self.time_limit_s, _SERVICES) as bounds,
                Exchange(bounds, self._proxy(), self.time_limit_s).open("GET", url, {}, parameters) as answer,
            ):
                if answer.status != 200:
                    return None
                text = b""
                while (piece := answer.read()) and len(text) <= _MAX_ANSWER_BYTES:
                    text += piece
                return own_json.parse(text)
        except (FetchError, ValueError):
            return None

    def _proxy(self) -> str | None:
        try:
            return self.proxies.next()
        except AllRestingError as error:
            raise StopError(str(error)) from error


def _online(answer: Any) -> Iterator[str]:
    """The videos that an answer of the Data API vouches for."""
    items = answer.get("items") if isinstance(answer, dict) else None
    for item in items if isinstance(items, list) else ():
        match item:
            case {"id": str(video), "status": {"privacyStatus": "public" | "unlisted", "uploadStatus": "processed"}}:
                yield video


def read_key(path: str | None) -> str | None:
    """The key of the Data API, or None.

    Raises:
      SecretError: it cannot be read.
    """
    return secret.read(path).strip() if path else None
