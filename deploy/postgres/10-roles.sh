#!/bin/sh
# Runs once, when the volume is empty: a role and a database for each service. Neither role may do anything but log in
# and own its database; neither can even connect to the other's. OMS cannot read the ledger, let alone change it.
set -eu
psql --no-psqlrc --set ON_ERROR_STOP=1 --username "${POSTGRES_USER:-postgres}" --dbname postgres \
    --set oms_password="$OMS_DB_PASSWORD" --set act_password="$ACT_DB_PASSWORD" <<'SQL'
CREATE ROLE oms LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION PASSWORD :'oms_password';
CREATE ROLE act LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION PASSWORD :'act_password';
CREATE DATABASE oms OWNER oms ENCODING 'UTF8' TEMPLATE template0;
CREATE DATABASE act OWNER act ENCODING 'UTF8' TEMPLATE template0;
REVOKE ALL ON DATABASE oms, act, postgres, template1 FROM PUBLIC;
SQL
