// Package strictjson reads the JSON of requests as RFC 8259 and I-JSON (RFC 7493)
// would have it sent: valid UTF-8, no lone surrogates, no name twice, names in their
// exact case, nothing after the value. It plugs into huma as its JSON format, and its
// Optional tells a member that is null from one that is absent.
package strictjson
