// Package mailtest is a mail server for tests: it takes what it is sent, or refuses every
// recipient, and keeps the mails.
package mailtest
