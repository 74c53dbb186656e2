// Package migrate holds the database schema as numbered SQL files and brings a database up to the newest one. It
// runs at every start, under an advisory lock, so that any number of replicas may start at once. A binary older
// than the schema refuses to run. The files are plain goose migrations. A released file is never edited; the next
// change is a new file.
package migrate
