// Package watch notices that files changed: written in place, replaced by a rename, reached by
// another symbolic link, on any file system.
//
// It looks at the files' status a few times a second. Events of the kernel were no help: there
// are none on network file systems, none for what a symbolic link leads to, and none any more
// once a folder was replaced, so that looking would be needed all the same.
package watch
