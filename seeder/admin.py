"""The seeder's admin API: what the `p2pd-seeder` command asks of a running one."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path

import trio

from p2pd import __version__
from p2pd.app.admin_gc import collect_endpoint
from p2pd.app.admin_http import Endpoint
from p2pd.app.effective import plain_config
from p2pd.app.images import blobs_of, images_of
from p2pd.app.keeper import Keeper
from p2pd.app.recent import RECENT
from p2pd.model import admin
from p2pd.model.errors import StoreError
from p2pd.ports.store import Store
from seeder.config import SeederConfig
from seeder.transfers import Transfers
from seeder.usage import SiteUsage, UsageLog, read_sites

__all__ = ["SeederAdmin"]


class SeederAdmin:
    """Answers from the seeder's parts; `listen` is where nodes reach it, as host:port."""

    def __init__(
        self,
        config: SeederConfig,
        store: Store,
        transfers: Transfers,
        keeper: Keeper,
        usage: UsageLog,
        usage_path: Path,
        listen: str,
    ) -> None:
        self._config, self._store, self._transfers = config, store, transfers
        self._keeper = keeper
        self._usage, self._usage_path, self._listen = usage, usage_path, listen
        self._started_at = time.time()

    def endpoints(self) -> Sequence[Endpoint]:
        return (
            Endpoint("GET", "/v1/status", "The seeder at a glance.", admin.SeederStatus, self._status),
            Endpoint("GET", "/v1/images", "Tags that were asked for.", admin.Images, self._images),
            Endpoint("GET", "/v1/blobs", "Held content.", admin.Blobs, self._blobs),
            Endpoint("GET", "/v1/sites", "Sites that were served.", admin.Sites, self._sites),
            Endpoint("GET", "/v1/config", "The configuration in use.", dict, self._effective),
            collect_endpoint(self._keeper),
        )

    async def _status(self) -> admin.SeederStatus:
        sites = await self._site_usage()
        held = [size for _, size in self._store.held()]
        return admin.SeederStatus(
            version=__version__,
            started_at=self._started_at,
            listen=self._listen,
            upstreams=[spec.registry for spec in self._config.upstreams],
            blobs=len(held),
            blob_bytes=sum(held),
            sites=len(sites),
            served=sum(site.bytes_served for site in sites),
            transfers=self._transfers.running,
            notices=RECENT.notices(),
        )

    async def _images(self) -> admin.Images:
        return admin.Images(await images_of(self._store))

    async def _blobs(self) -> admin.Blobs:
        return admin.Blobs(await blobs_of(self._store))

    async def _sites(self) -> admin.Sites:
        return admin.Sites(
            [
                admin.Site(each.site, each.last_used, each.answers, each.bytes_served)
                for each in await self._site_usage()
            ]
        )

    async def _effective(self) -> dict[str, object]:
        return plain_config(self._config)

    async def _site_usage(self) -> list[SiteUsage]:
        await self._usage.flush()
        try:
            return await trio.to_thread.run_sync(read_sites, self._usage_path)
        except sqlite3.Error as error:
            raise StoreError(f"cannot read {self._usage_path}: {error}") from error
