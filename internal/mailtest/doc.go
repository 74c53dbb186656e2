// Package mailtest is a mail server for tests: it keeps the mails that it gets, or refuses every recipient.
package mailtest
