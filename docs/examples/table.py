"""Read a remote table with pandas, and write what it says beside it: python table.py URL

The URL names the server, as in fileexport://server:6768/data/sales.csv; token and TLS come from the
environment, as for the command `fileexport`.
"""

import sys

import pandas


def summarize(url: str) -> str:
    """The total of each product of a table; returns the URL of the new one."""
    sales = pandas.read_csv(url)
    totals = sales.groupby("product", as_index=False)["amount"].sum()
    target = url.removesuffix(".csv") + "-totals.csv"
    totals.to_csv(target, index=False)
    return target


if __name__ == "__main__":
    print(summarize(sys.argv[1]))
