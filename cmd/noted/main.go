package main

import (
	_ "github.com/alecthomas/kong"
	_ "github.com/casbin/casbin/v2"
	_ "github.com/coreos/go-oidc/v3/oidc"
	_ "github.com/danielgtaylor/huma/v2/adapters/humachi"
	_ "github.com/fergusstrange/embedded-postgres"
	_ "github.com/go-chi/chi/v5/middleware"
	_ "github.com/go-jose/go-jose/v4"
	_ "github.com/go-jose/go-jose/v4/jwt"
	_ "github.com/goccy/go-yaml"
	_ "github.com/google/go-cmp/cmp"
	_ "github.com/jackc/pgx/v5/pgxpool"
	_ "github.com/pressly/goose/v3"
	_ "github.com/prometheus/client_golang/prometheus/promhttp"
	_ "github.com/swaggest/swgui/v5emb"
	_ "golang.org/x/oauth2"
	_ "pgregory.net/rapid"
	_ "github.com/google/uuid"
	_ "github.com/go-json-experiment/json"
)

func main() {}
