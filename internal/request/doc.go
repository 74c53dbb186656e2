// Package request carries what the server knows of a request before anybody looks at it: its id, arrival time and
// address, and a logger with the id. The server puts it into the context first of all; audit, problem and identity
// read it there. identity and authz add the credential and the permission that let the caller in, for the record.
package request
