"""Write a project as a dataset: plain parquet that anybody reads, with all that an import needs to lose nothing."""
