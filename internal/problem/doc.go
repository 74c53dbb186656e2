// Package problem is the one place that turns an error into a status and a body: application/problem+json (RFC
// 9457), for every answer that is not a success. A room returns one of these errors or any other. Any other is
// logged under the request id and shown as 500, or as 503 if the database is away.
package problem
