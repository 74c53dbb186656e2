// Package nearest finds the word that somebody probably meant, for errors that suggest it.
package nearest
