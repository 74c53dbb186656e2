// Package request carries what the server knows of a request before anybody looks
// at it: its id, when it came, from which address, and a logger that names the id.
// The server puts it into the context first of all; audit, problem and identity
// read it there. identity and authz add by which credential and permission the caller
// was let in, for the record.
package request
