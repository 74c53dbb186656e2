// Package strictjson reads the JSON of requests as RFC 8259 and I-JSON (RFC 7493) require: valid UTF-8, no lone
// surrogates, no duplicate names, names in their exact case, nothing after the value. It is huma's JSON format
// here. Its Optional distinguishes a null member from an absent one.
package strictjson
