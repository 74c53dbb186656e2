// Package name checks the names that people give to things: organizations, notebooks, keys, notes. Lists, mails
// and the security record show a name beside other people's text, so it must not break a line, change the
// direction of the text around it, or be invisible.
package name
