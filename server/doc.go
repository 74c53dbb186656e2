// Package server wires the rooms together: settings, the order of the middleware, the routes, the start and the
// drain. `noted serve` and `noted dev` run this same server; what is special to dev (its own PostgreSQL, its
// people) is in cmd/noted. A route stops the start unless it is in the list of public ones or declares a
// permission.
package server
