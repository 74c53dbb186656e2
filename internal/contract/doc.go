// Package contract holds the answers of a server against its OpenAPI document. Only tests import it: the tests'
// server looks at each of its answers by it, and so does the client of the end-to-end tests.
package contract
