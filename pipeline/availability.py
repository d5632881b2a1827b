"""Whether sources are still online, asked without downloading and as cheaply as it can be.

YouTube's Data API answers for 50 videos at a time (`videos.list`, one unit of quota a call), where a key is given;
oEmbed answers for one, without a key. Both say only yes: what they do not vouch for is asked of yt-dlp, which learns
the reason. Other URLs get a HEAD request.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import requests

from mbt.pipeline import secret, storage, youtube
from mbt.pipeline.breaker import Breaker
from mbt.pipeline.budget import Budget
from mbt.pipeline.download import CONNECT_TIMEOUT_S, READ_TIMEOUT_S, head
from mbt.pipeline.fetch import store_failure
from mbt.pipeline.outcomes import Failure, FetchError, StopError
from mbt.pipeline.proxies import AllRestingError, Proxies
from mbt.pipeline.sources import is_url
from mbt.schemas.clip import Outcome

BATCH = 50  # videos in one call of the Data API
_OEMBED = "https://www.youtube.com/oembed"
_DATA_API = "https://www.googleapis.com/youtube/v3/videos"
_TIMEOUT = (CONNECT_TIMEOUT_S, READ_TIMEOUT_S)


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
    """

    youtube: youtube.Settings
    api_key: str | None
    budget: Budget
    proxies: Proxies
    breaker: Breaker

    def ask(self, sources: Sequence[str], failing: Mapping[str, str]) -> Iterator[Answer]:
        """Asks for sources, `BATCH` of them at most; none is yielded for those that the run's end left unasked.

        Args:
          sources: to ask for.
          failing: outcomes of those that are expected to fail, as the breaker takes them.
        """
        videos = {source: video for source in sources if (video := youtube.video_id(source))}
        vouched = self._by_data_api(sorted(set(videos.values()))) if self.api_key else frozenset()
        for source in sources:
            if self.breaker.tripped(source) is not None:
                continue
            if videos.get(source) in vouched:
                yield Answer(source=source, failure=None, by="YouTube Data API")
                continue
            try:
                answer = self._answer(source, videos.get(source))
                self._heard(answer, failing.get(source, ""))
                yield answer
            except StopError as error:
                self.breaker.trip(str(error))
                return

    def _answer(self, source: str, video: str | None) -> Answer:
        if video is not None and not self.api_key and self._by_oembed(video):
            answer = Answer(source=source, failure=None, by="oEmbed")
        elif video is not None:
            answer = Answer(source=source, failure=self._failure(video), by="yt-dlp")
        elif is_url(source):
            with self.budget.download():
                answer = Answer(source=source, failure=head(source, self._proxy()), by="HEAD")
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
            response = self._get(_OEMBED, {"url": page, "format": "json"})
        return response is not None and response.status_code == 200

    def _by_data_api(self, videos: list[str]) -> frozenset[str]:
        """Of at most `BATCH` videos, those that are public or unlisted, and processed."""
        found: set[str] = set()
        for first in range(0, len(videos), BATCH):
            batch = videos[first : first + BATCH]
            response = self._get(_DATA_API, {"part": "status", "id": ",".join(batch), "key": self.api_key})
            if response is None or response.status_code != 200:
                continue  # quota spent, or no answer: yt-dlp is asked
            for item in response.json().get("items", ()):
                status = item.get("status", {})
                if status.get("privacyStatus") in ("public", "unlisted") and status.get("uploadStatus") == "processed":
                    found.add(item.get("id", ""))
        return frozenset(found)

    def _get(self, url: str, parameters: dict) -> requests.Response | None:
        proxy = self._proxy()
        proxies = {"http": proxy, "https": proxy} if proxy else None
        try:
            return requests.get(url, params=parameters, timeout=_TIMEOUT, proxies=proxies, allow_redirects=False)
        except requests.exceptions.RequestException:
            return None

    def _proxy(self) -> str | None:
        try:
            return self.proxies.next()
        except AllRestingError as error:
            raise StopError(str(error)) from error


def read_key(path: str | None) -> str | None:
    """The key of the Data API, or None.

    Raises:
      SecretError: it cannot be read.
    """
    return secret.read(path).strip() if path else None
