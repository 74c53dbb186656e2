// Package name says what people may call the things they make: organizations, notebooks, keys,
// notes. A name is shown in lists, mails and the security record beside what others wrote, so it
// must not break a line, turn the text around it or be nothing to see.
package name
