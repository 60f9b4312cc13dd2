"""Tables in, encoded blocks and Parquet parts out. pandas and pyarrow stop here."""
