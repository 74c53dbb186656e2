// Package nearest finds the word that somebody probably meant, for suggestions in errors.
package nearest
