package migrate_test

import (
	"errors"
	"sync"
	"testing"

	"noted/internal/localpg/pgtest"
	"noted/internal/migrate"
)

func TestDevMarksAnEmptyDatabaseAndServeRefusesItFromThenOn(t *testing.T) {
	address := empty(t)
	for range 2 {
		if err := migrate.UpDev(t.Context(), address, false); err != nil {
			t.Fatal(err)
		}
		if err := migrate.Up(t.Context(), address); !errors.Is(err, migrate.ErrDev) {
			t.Errorf("serve: %v", err)
		}
	}
	if newest, _ := version(t, address); newest != migrate.Version() {
		t.Errorf("its schema has version %d", newest)
	}
}

// A start that was killed half way leaves a database that is already dev's.
func TestDevMarksBeforeItMigrates(t *testing.T) {
	address := empty(t)
	exec(t, address, `create table noted_dev ()`)
	if err := migrate.Up(t.Context(), address); !errors.Is(err, migrate.ErrDev) {
		t.Errorf("serve: %v", err)
	}
	if err := migrate.UpDev(t.Context(), address, false); err != nil {
		t.Errorf("dev: %v", err)
	}
}

// A data folder from before the mark has a PostgreSQL that only dev can have filled.
func TestDevsOwnOlderDatabaseIsMarkedThen(t *testing.T) {
	address := pgtest.URL(t)
	if err := migrate.UpDev(t.Context(), address, false); !errors.Is(err, migrate.ErrNotDev) {
		t.Errorf("as a database that was given: %v", err)
	}
	if err := migrate.Up(t.Context(), address); err != nil {
		t.Errorf("the refused dev left something behind: %v", err)
	}
	if err := migrate.UpDev(t.Context(), address, true); err != nil {
		t.Errorf("as its own: %v", err)
	}
	if err := migrate.Up(t.Context(), address); !errors.Is(err, migrate.ErrDev) {
		t.Errorf("serve afterwards: %v", err)
	}
}

func TestAnEmptyDatabaseIsOneInWhichNobodyPutAnything(t *testing.T) {
	for sql, want := range map[string]bool{
		`create table t ()`:                               false,
		`create sequence s`:                               false,
		`create schema x; create view x.v as select 1`:    false,
		`create type pair as (a int, b int)`:              false,
		`create schema x`:                                 true,
		`create extension if not exists plpgsql`:          true,
		`create temporary table gone_with_its_session ()`: true,
	} {
		address := empty(t)
		exec(t, address, sql)
		if err := migrate.UpDev(t.Context(), address, false); (err == nil) != want || err != nil && !errors.Is(err, migrate.ErrNotDev) {
			t.Errorf("%s: %v", sql, err)
		}
	}
}

func TestServeAndDevAtOnceOnAnEmptyDatabaseOneHasIt(t *testing.T) {
	for range 5 {
		address := empty(t)
		errs := make([]error, 4)
		var group sync.WaitGroup
		for i := range errs {
			group.Go(func() {
				if i%2 == 0 {
					errs[i] = migrate.Up(t.Context(), address)
				} else {
					errs[i] = migrate.UpDev(t.Context(), address, false)
				}
			})
		}
		group.Wait()
		served, dev := errs[0] == nil, errs[1] == nil
		if served == dev || errs[2] == nil != served || errs[3] == nil != dev {
			t.Errorf("%v", errs)
		}
	}
}
