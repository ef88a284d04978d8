"""The admin APIs' way to the keeper, the same for node and seeder."""

from __future__ import annotations

from p2pd.app.admin_http import Endpoint
from p2pd.app.keeper import Keeper
from p2pd.model import admin

__all__ = ["collect_endpoint"]


def collect_endpoint(keeper: Keeper) -> Endpoint:
    async def collect(order: admin.CollectOrder) -> admin.Collected:
        return await keeper.collect(dry_run=order.dry_run)

    about = "Let go what the store's limits ask for, now instead of by and by; or tell what would go."
    return Endpoint("POST", "/v1/gc", about, admin.Collected, collect, admin.CollectOrder)
