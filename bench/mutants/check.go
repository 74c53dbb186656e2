package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"

	"github.com/jackc/pgx/v5"
)

// checkSQL makes the database parse every recorded statement with each of its faults: invalid SQL would fail any
// test, and show nothing.
func (f *finder) checkSQL(ctx context.Context, statements map[string]bool) (wrong error) {
	server := os.Getenv("NOTED_TEST_DATABASE_URL")
	if server == "" {
		return errors.New("NOTED_TEST_DATABASE_URL is not set; run this by internal/localpg/withpg")
	}
	admin, err := pgx.Connect(ctx, server)
	if err != nil {
		return fmt.Errorf("connecting: %w", err)
	}
	defer func() { _ = admin.Close(ctx) }()
	var template string
	if err := admin.QueryRow(ctx, `select datname from pg_database where datname like 'noted_template_%' limit 1`).Scan(&template); err != nil {
		return fmt.Errorf("finding the database that the tests have made: %w", err)
	}
	const name = "noted_mutants"
	if _, err := admin.Exec(ctx, `create database `+name+` template `+template); err != nil {
		return fmt.Errorf("making a database: %w", err)
	}
	defer func() { _, _ = admin.Exec(ctx, `drop database `+name+` with (force)`) }()
	address, err := url.Parse(server)
	if err != nil {
		return err
	}
	address.Path = "/" + name
	conn, err := pgx.Connect(ctx, address.String())
	if err != nil {
		return fmt.Errorf("connecting: %w", err)
	}
	defer func() { _ = conn.Close(ctx) }()
	for _, p := range f.places {
		clause, ok := f.sql[p.id]
		if !ok {
			continue
		}
		for marked := range statements {
			if !strings.Contains(marked, fmt.Sprintf("/*m%d<*/", p.id)) {
				continue
			}
			sql, _, err := pgx.NamedArgs{}.RewriteQuery(ctx, conn, fillIn(marked, p.id, clause), nil)
			if err == nil {
				_, err = conn.Prepare(ctx, "", sql)
			}
			if err != nil {
				wrong = errors.Join(wrong, fmt.Errorf("%s: %w", p.name, err))
			}
			break
		}
	}
	return wrong
}
