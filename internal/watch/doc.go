// Package watch notices changed files: written in place, replaced by a rename, or reached by another symbolic link,
// on any file system.
//
// It looks at the files' status a few times a second. Kernel events would not help: network file systems have none,
// targets of symbolic links have none, and they stop after a folder is replaced. So looking would be needed all
// the same.
package watch
