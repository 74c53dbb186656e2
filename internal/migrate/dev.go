package migrate

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
)

// ErrDev is returned when production is given a database that `noted dev` made.
var ErrDev = errors.New("the database is one of noted dev")

// ErrNotDev is returned when `noted dev` is given a database that is neither empty nor its own.
var ErrNotDev = errors.New("the database is not one of noted dev")

// devMark is an empty table that `noted dev` makes first of all in its own database. No migration makes it. It
// marks a database with people whom anybody can be.
const devMark = "noted_dev"

// isMarked looks in every schema: the mark is for the whole database, whatever search_path says.
func isMarked(ctx context.Context, db *sql.Conn) (marked bool, err error) {
	err = db.QueryRowContext(ctx, `select exists (select from pg_class where relname = $1 and relkind = 'r')`, devMark).Scan(&marked)
	if err != nil {
		return false, fmt.Errorf("asking whose the database is: %w", err)
	}
	return marked, nil
}

func refuseDev(ctx context.Context, db *sql.Conn) error {
	marked, err := isMarked(ctx, db)
	if err != nil {
		return err
	}
	if marked {
		return fmt.Errorf("%w: it has people without passwords in it, and their keys; set database_url to another database, one that noted dev was never given", ErrDev)
	}
	return nil
}

func claimForDev(ctx context.Context, db *sql.Conn, private bool) error {
	marked, err := isMarked(ctx, db)
	if err != nil || marked {
		return err
	}
	if !private {
		// Anything counts, except what an extension brought.
		var empty bool
		err := db.QueryRowContext(ctx, `
			select not exists (
				select from pg_class c join pg_namespace n on n.oid = c.relnamespace
				where n.nspname not in ('pg_catalog', 'information_schema') and n.nspname not like 'pg\_toast%' and n.nspname not like 'pg\_temp%'
					and not exists (select from pg_depend d where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype = 'e'))`).Scan(&empty)
		if err != nil {
			return fmt.Errorf("asking whether the database is empty: %w", err)
		}
		if !empty {
			return fmt.Errorf("%w, and not empty: noted dev would put people without passwords into it; give it an empty database (createdb noted_dev), or leave database_url out for one of its own", ErrNotDev)
		}
	}
	if _, err := db.ExecContext(ctx, `create table `+devMark+` ()`); err != nil {
		return fmt.Errorf("marking the database as one of noted dev: %w", err)
	}
	return nil
}
