package main

// accepted are harmless faults, by name, with the reason. One that names nothing fails the run.
var accepted = map[string]string{
	"identity/authenticate.go:BySession:caller.Via != authz.ViaSession is false": "a second wall: a policy whose key role holds what pages need is refused",
}

// accepted reports whether f is accepted, for its operation or for all.
func (f *fault) accepted() bool { return accepted[f.name] != "" || accepted[f.String()] != "" }
