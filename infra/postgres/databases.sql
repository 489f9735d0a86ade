-- Run once by the postgres image, in an empty data folder. `playbill` itself is made by POSTGRES_DB.
CREATE DATABASE feast;
CREATE DATABASE mlflow;
