// Package migrate holds the database schema as numbered SQL files and brings a
// database up to the newest of them. It runs at every start, under an advisory
// lock, so that any number of replicas may start at once; a binary that is older
// than the schema it finds refuses to run. The files are plain goose migrations;
// a file that was released is never edited, the next change is a new file.
package migrate
