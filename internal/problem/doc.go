// Package problem is the one place where an error becomes a status and a body:
// application/problem+json (RFC 9457), for every answer that is not a success.
// A room returns one of these errors, or any other; any other is logged under the
// request id and shown as 500, or as 503 when it is the database that is away.
package problem
