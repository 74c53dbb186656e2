package server

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/kong"
	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"

	"noted/authz"
	"noted/identity/oidc"
	"noted/internal/duration"
	"noted/internal/nearest"
	"noted/orgs"
)

// Settings are the scalars of the configuration. Each is a member of the YAML file, a flag (--dead-zone-retention)
// and an environment variable (NOTED_DEAD_ZONE_RETENTION). A flag overrides a variable, and a variable the file.
type Settings struct {
	Listen                string        `yaml:"listen" default:"127.0.0.1:8080" env:"NOTED_LISTEN" help:"Address to serve on, host:port; port 0 picks a free one."`
	MetricsListen         string        `yaml:"metrics_listen" env:"NOTED_METRICS_LISTEN" help:"Address for /metrics, host:port; none if left out (dev: on the same address)."`
	PublicURL             string        `yaml:"public_url" name:"public-url" env:"NOTED_PUBLIC_URL" help:"The address people open: https://notes.example (http on loopback only)."`
	DatabaseURL           string        `yaml:"database_url" name:"database-url" env:"NOTED_DATABASE_URL" help:"PostgreSQL 15 or newer: postgres://user:password@host/database."`
	Model                 string        `yaml:"model" env:"NOTED_MODEL" help:"Casbin's model file; model.conf here, else the one in the binary."`
	Policy                string        `yaml:"policy" env:"NOTED_POLICY" help:"The policy file; policy.csv here, else the one in the binary."`
	TrustedProxies        []string      `yaml:"trusted_proxies" env:"NOTED_TRUSTED_PROXIES" help:"Networks (CIDR) whose X-Forwarded-For is believed."`
	AuthFailureFloor      time.Duration `yaml:"auth_failure_floor" default:"300ms" env:"NOTED_AUTH_FAILURE_FLOOR" help:"The least time a failed authentication takes."`
	AuthFailuresPerMinute int           `yaml:"auth_failures_per_minute" default:"60" env:"NOTED_AUTH_FAILURES_PER_MINUTE" help:"Failures of one address before they become 429; 0 is no limit."`
	SessionIdle           time.Duration `yaml:"session_idle" default:"24h" env:"NOTED_SESSION_IDLE" help:"A session unused for so long ends."`
	SessionAbsolute       time.Duration `yaml:"session_absolute" default:"168h" env:"NOTED_SESSION_ABSOLUTE" help:"A session this old ends, whatever its use."`
	KeyMaxAge             time.Duration `yaml:"key_max_age" default:"8760h" env:"NOTED_KEY_MAX_AGE" help:"The longest life of an API key."`
	KeyOwnerMaxAbsence    time.Duration `yaml:"key_owner_max_absence" default:"2160h" env:"NOTED_KEY_OWNER_MAX_ABSENCE" help:"Keys stop when their owner has not signed in for so long."`
	GroupMaxAge           time.Duration `yaml:"group_max_age" default:"168h" env:"NOTED_GROUP_MAX_AGE" help:"E-mail and group names count for so long after a sign-in."`
	InvitationLifetime    time.Duration `yaml:"invitation_lifetime" default:"168h" env:"NOTED_INVITATION_LIFETIME" help:"An invitation to an organization counts for so long."`
	OrgsPerDay            int           `yaml:"orgs_per_day" default:"20" env:"NOTED_ORGS_PER_DAY" help:"Organizations that one person may make in a day; 0 is no limit."`
	SMTPURL               string        `yaml:"smtp_url" name:"smtp-url" env:"NOTED_SMTP_URL" help:"Mail server for invitations: smtp://user:password@host:587 or smtps://…:465; no mail if left out."`
	MailFrom              string        `yaml:"mail_from" env:"NOTED_MAIL_FROM" help:"Sender of mail: noted <noted@example.com>."`
	AllowNoAdmin          bool          `yaml:"allow_no_admin" env:"NOTED_ALLOW_NO_ADMIN" help:"Start although policy.csv names no admin."`
	DeadZoneRetention     time.Duration `yaml:"dead_zone_retention" default:"720h" env:"NOTED_DEAD_ZONE_RETENTION" help:"Deleted notes wait so long before they are purged."`
	DeadZonePurgeEvery    time.Duration `yaml:"dead_zone_purge_every" default:"1h" env:"NOTED_DEAD_ZONE_PURGE_EVERY" help:"Time between two purges."`
	LogLevel              string        `yaml:"log_level" default:"info" enum:"debug,info,warn,error" env:"NOTED_LOG_LEVEL" help:"debug, info, warn or error."`
	RequestTimeout        time.Duration `yaml:"request_timeout" default:"30s" env:"NOTED_REQUEST_TIMEOUT" help:"A request ends with 503 after so long; the minute that its body may take comes on top."`
	StatementTimeout      time.Duration `yaml:"statement_timeout" default:"20s" env:"NOTED_STATEMENT_TIMEOUT" help:"PostgreSQL ends a request's statement after so long."`
	LockTimeout           time.Duration `yaml:"lock_timeout" default:"10s" env:"NOTED_LOCK_TIMEOUT" help:"PostgreSQL ends a statement that waits so long for a lock."`
	HTTPConnections       int           `yaml:"http_connections" name:"http-connections" default:"4096" env:"NOTED_HTTP_CONNECTIONS" help:"Connections of clients at a time; idle ones make room for others."`
	ShutdownGrace         time.Duration `yaml:"shutdown_grace" default:"20s" env:"NOTED_SHUTDOWN_GRACE" help:"Requests under way get so long to finish."`
}

// ProviderSettings is one entry of providers in the YAML file.
type ProviderSettings struct {
	ID                  string   `yaml:"id"`
	Name                string   `yaml:"name"`
	Issuer              string   `yaml:"issuer"`
	ClientID            string   `yaml:"client_id"`
	ClientSecret        string   `yaml:"client_secret"`
	ClientSecretFile    string   `yaml:"client_secret_file"`
	ClientSecretEnv     string   `yaml:"client_secret_env"`
	Scopes              []string `yaml:"scopes"`
	EmailDomains        []string `yaml:"email_domains"`
	GroupsClaims        []string `yaml:"groups_claims"`
	AllowedEmailDomains []string `yaml:"allowed_email_domains"`
	AllowedGroups       []string `yaml:"allowed_groups"`
	HostedDomains       []string `yaml:"hosted_domains"`
	AllowEveryone       bool     `yaml:"allow_everyone"`
	AllowedAudiences    []string `yaml:"allowed_audiences"`
	CAFile              string   `yaml:"ca_file"`

	places map[string]string // name:line:column of each member present, and of the entry under ""
}

// place returns where to look for a member: itself, else its entry.
func (p ProviderSettings) place(member string) string {
	if at, ok := p.places[member]; ok {
		return at
	}
	if at, ok := p.places[""]; ok {
		return at
	}
	return "providers"
}

// file is the whole YAML file.
type file struct {
	Settings  `yaml:",inline"`
	Providers []ProviderSettings `yaml:"providers"`
}

// ReadFile reads the YAML file name strictly. Unknown and duplicate members and values of the wrong type are
// errors with name:line:column. It returns the scalars, unconverted, by their YAML names, and the providers.
func ReadFile(name string) (scalars map[string]any, providers []ProviderSettings, err error) {
	text, err := os.ReadFile(name) //nolint:gosec // the operator names it
	if err != nil {
		return nil, nil, err
	}
	if len(bytes.TrimSpace(text)) == 0 {
		return nil, nil, nil
	}
	if err := checkTree(name, text); err != nil {
		return nil, nil, err
	}
	var f file
	if err := yaml.UnmarshalWithOptions(text, &f, yaml.Strict(), yaml.CustomUnmarshaler(yamlDuration)); err != nil {
		return nil, nil, located(name, err)
	}
	if err := yaml.Unmarshal(text, &scalars); err != nil {
		return nil, nil, located(name, err)
	}
	delete(scalars, "providers")
	locateProviders(name, text, f.Providers)
	return scalars, f.Providers, nil
}

// locateProviders notes where each provider's members are, for error messages.
func locateProviders(name string, text []byte, entries []ProviderSettings) {
	path, err := yaml.PathString("$.providers")
	if err != nil {
		return
	}
	node, err := path.ReadNode(bytes.NewReader(text))
	list, ok := node.(*ast.SequenceNode)
	if err != nil || !ok || len(list.Values) != len(entries) {
		return
	}
	for i, value := range list.Values {
		mapping, ok := value.(*ast.MappingNode)
		if !ok {
			continue
		}
		entries[i].places = map[string]string{}
		for j, member := range mapping.Values {
			entries[i].places[member.Key.String()] = position(name, member.Key)
			if j == 0 {
				entries[i].places[""] = position(name, member.Key)
			}
		}
	}
}

// yamlDuration reads what checkTree has accepted.
func yamlDuration(into *time.Duration, value []byte) (err error) {
	var text string
	if err := yaml.Unmarshal(value, &text); err != nil {
		return err
	}
	*into, err = duration.Parse(text)
	return err
}

// DurationFlags makes kong read each time.Duration of flags, variables and defaults as the file's are read.
func DurationFlags() kong.Option {
	return kong.TypeMapper(reflect.TypeFor[time.Duration](), kong.MapperFunc(func(ctx *kong.DecodeContext, target reflect.Value) error {
		var text string
		if err := ctx.Scan.PopValueInto("duration", &text); err != nil {
			return err
		}
		d, err := duration.Parse(text)
		if err != nil {
			return fmt.Errorf("%.100q %w", text, err)
		}
		target.SetInt(int64(d))
		return nil
	}))
}

// checkTree refuses what the decoder ignores or cannot locate: a second document, which would not be read, and
// malformed durations. It also refuses unknown names, and suggests what was meant.
func checkTree(name string, text []byte) error {
	tree, err := parser.ParseBytes(text, 0)
	if err != nil {
		return located(name, err)
	}
	if len(tree.Docs) > 1 {
		second := tree.Docs[1]
		line := 1
		if second.Start != nil {
			line = second.Start.Position.Line
		}
		return fmt.Errorf("%s:%d:1: a second document starts here; write one", name, line)
	}
	if len(tree.Docs) == 0 {
		return nil
	}
	mapping, ok := tree.Docs[0].Body.(*ast.MappingNode)
	if !ok {
		return nil // the decoder reports it
	}
	settings, durations := namesOf(reflect.TypeFor[Settings]())
	if err := checkNames(name, mapping, append(settings, "providers")); err != nil {
		return err
	}
	for _, entry := range mapping.Values {
		if providers, ok := entry.Value.(*ast.SequenceNode); ok && entry.Key.String() == "providers" {
			members, _ := namesOf(reflect.TypeFor[ProviderSettings]())
			for _, value := range providers.Values {
				if provider, ok := value.(*ast.MappingNode); ok {
					if err := checkNames(name, provider, members); err != nil {
						return err
					}
				}
			}
		}
		if !slices.Contains(durations, entry.Key.String()) {
			continue
		}
		var err error
		switch value := entry.Value.(type) {
		case *ast.NullNode: // as if absent
		case ast.ScalarNode:
			_, err = duration.Parse(fmt.Sprint(value.GetValue()))
		case *ast.MappingNode, *ast.SequenceNode:
			_, err = duration.Parse("")
		}
		if err != nil {
			return fmt.Errorf("%s: %s: %q %w", position(name, entry.Value), entry.Key, entry.Value.String(), err)
		}
	}
	return nil
}

// checkNames refuses an unknown member, and says which was probably meant.
func checkNames(name string, mapping *ast.MappingNode, known []string) error {
	for _, entry := range mapping.Values {
		key := entry.Key.String()
		if slices.Contains(known, key) || entry.Key.IsMergeKey() {
			continue
		}
		text := fmt.Sprintf("%s: unknown setting %q", position(name, entry.Key), key)
		if near := nearest.Of(key, known); near != "" {
			text += "; did you mean " + near + "?"
		}
		return errors.New(text)
	}
	return nil
}

// position returns where a node is: name:line:column.
func position(name string, node ast.Node) string {
	at := node.GetToken().Position
	return fmt.Sprintf("%s:%d:%d", name, at.Line, at.Column)
}

// namesOf returns the YAML names of a struct's members, and of those that are durations.
func namesOf(of reflect.Type) (names, durations []string) {
	for field := range of.Fields() {
		name := field.Tag.Get("yaml")
		if name == "" {
			continue
		}
		names = append(names, name)
		if field.Type == reflect.TypeFor[time.Duration]() {
			durations = append(durations, name)
		}
	}
	return names, durations
}

// located writes a YAML error as name:line:column: what is wrong. It leaves out the library's excerpt of the file,
// which may show a secret.
func located(name string, err error) error {
	var at yaml.Error
	if errors.As(err, &at) && at.GetToken() != nil && at.GetToken().Position != nil {
		position := at.GetToken().Position
		return fmt.Errorf("%s:%d:%d: %s", name, position.Line, position.Column, at.GetMessage())
	}
	return fmt.Errorf("%s: %w", name, err)
}

// DevProvider is the id of `noted dev`'s provider; no other may have it.
const DevProvider = "dev"

// Providers checks the entries and makes providers of them. Errors name the entry, the member and what to write.
func Providers(entries []ProviderSettings) (oidc.Providers, error) {
	var providers oidc.Providers
	var errs []error
	ids, issuers := map[string]bool{}, map[string]bool{}
	for i, entry := range entries {
		provider, faults := entry.provider()
		if ids[entry.ID] {
			faults = append(faults, fault{"id", fmt.Sprintf("%s is there twice; take another for one of them", entry.ID)})
		}
		if issuers[entry.Issuer] {
			faults = append(faults, fault{"issuer", "is that of another provider here; people are known by it, so write it once"})
		}
		for _, f := range faults {
			errs = append(errs, fmt.Errorf("%s: providers[%d] (%s): %s: %s", entry.place(f.member), i, entry.ID, f.member, f.text))
		}
		ids[entry.ID], issuers[entry.Issuer] = true, true
		providers = append(providers, provider)
	}
	return providers, errors.Join(errs...)
}

// fault is what is wrong with one member, and what to write.
type fault struct{ member, text string }

func (p ProviderSettings) provider() (provider *oidc.Provider, faults []fault) {
	fail := func(member, format string, args ...any) {
		faults = append(faults, fault{member, fmt.Sprintf(format, args...)})
	}
	if !authz.IsProviderID(p.ID) {
		fail("id", "write lower-case letters, digits and hyphens, a letter first")
	}
	if authz.IsReserved(p.ID) || p.ID == DevProvider {
		fail("id", "%s is reserved; take another", p.ID)
	}
	if wrong := checkIssuer(p.Issuer); wrong != "" {
		fail("issuer", "%s", wrong)
	}
	if p.ClientID == "" {
		fail("client_id", "is missing; the provider gave it to you")
	}
	secret, wrong := p.secret()
	if wrong != nil {
		faults = append(faults, *wrong)
	}
	gated := len(p.AllowedEmailDomains)+len(p.AllowedGroups)+len(p.HostedDomains) > 0
	switch {
	case gated && p.AllowEveryone:
		fail("allow_everyone", "would let in those whom allowed_email_domains, allowed_groups or hosted_domains keep out; write the gates, or allow_everyone, not both")
	case !gated && !p.AllowEveryone:
		fail("allow_everyone", "nothing says who may sign in; set allowed_email_domains, allowed_groups or hosted_domains, or allow_everyone: true for whoever has an account there")
	}
	if len(p.AllowedGroups) > 0 && len(p.GroupsClaims) == 0 {
		fail("groups_claims", "allowed_groups needs to know which claim names the groups")
	}
	var roots *x509.CertPool
	if p.CAFile != "" {
		var err error
		if roots, err = rootsFrom(p.CAFile); err != nil {
			fail("ca_file", "%v", err)
		}
	}
	name, scopes := p.Name, p.Scopes
	if name == "" {
		name = p.ID
	}
	if len(scopes) == 0 {
		scopes = []string{"openid", "email", "profile"}
	}
	if !slices.Contains(scopes, "openid") {
		fail("scopes", "openid must be among them")
	}
	return &oidc.Provider{
		ID: p.ID, Name: name, Issuer: p.Issuer, ClientID: p.ClientID, ClientSecret: secret, Scopes: scopes,
		EmailDomains: lower(p.EmailDomains), GroupsClaims: p.GroupsClaims, AllowedEmailDomains: lower(p.AllowedEmailDomains),
		AllowedGroups: p.AllowedGroups, HostedDomains: lower(p.HostedDomains),
		AllowedAudiences: p.AllowedAudiences, RootCAs: roots,
	}, faults
}

// secret reads the client's secret from the one place that is set.
func (p ProviderSettings) secret() (string, *fault) {
	set := 0
	for _, place := range []string{p.ClientSecret, p.ClientSecretFile, p.ClientSecretEnv} {
		if place != "" {
			set++
		}
	}
	if set != 1 {
		return "", &fault{"client_secret", "write one of client_secret, client_secret_file, client_secret_env"}
	}
	switch {
	case p.ClientSecretFile != "":
		text, err := os.ReadFile(p.ClientSecretFile)
		if err != nil {
			return "", &fault{"client_secret_file", err.Error()}
		}
		if secret := strings.TrimSpace(string(text)); secret != "" {
			return secret, nil
		}
		return "", &fault{"client_secret_file", p.ClientSecretFile + " is empty"}
	case p.ClientSecretEnv != "":
		if secret := os.Getenv(p.ClientSecretEnv); secret != "" {
			return secret, nil
		}
		return "", &fault{"client_secret_env", "the variable " + p.ClientSecretEnv + " is not set"}
	}
	return p.ClientSecret, nil
}

// checkIssuer says what is wrong with an issuer; empty if nothing is.
func checkIssuer(issuer string) string {
	u, err := url.Parse(issuer)
	switch {
	case err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return "write the provider's address as its discovery document has it, such as https://accounts.google.com"
	case u.Scheme == "https", u.Scheme == "http" && IsLoopback(u.Hostname()):
		return ""
	}
	return "must be https; http is for a loopback address alone"
}

func rootsFrom(name string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(name) //nolint:gosec // the operator names it
	if err != nil {
		return nil, err
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool()
	}
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s has no certificate in it", name)
	}
	return roots, nil
}

func lower(list []string) []string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = strings.ToLower(s)
	}
	return out
}

// Check refuses settings that cannot work, all at once, each with what to write.
func (s *Settings) Check() error {
	var errs []error
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	settings := reflect.ValueOf(*s)
	for i := range settings.NumField() {
		if d, ok := settings.Field(i).Interface().(time.Duration); ok && d <= 0 {
			name, _, _ := strings.Cut(settings.Type().Field(i).Tag.Get("yaml"), ",")
			fail("%s: must be longer than 0, such as 24h", name)
		}
	}
	if s.AuthFailuresPerMinute < 0 {
		fail("auth_failures_per_minute: must be 0 (no limit) or more")
	}
	if s.HTTPConnections < 1 {
		fail("http_connections: must be 1 or more")
	}
	if s.OrgsPerDay < 0 {
		fail("orgs_per_day: must be 0 (no limit) or more")
	}
	for _, network := range s.TrustedProxies {
		if _, err := netip.ParsePrefix(network); err != nil {
			fail("trusted_proxies: %q is not a network; write it as 10.0.0.0/8 or 127.0.0.1/32", network)
		}
	}
	if s.DatabaseURL == "" {
		fail("database_url: is missing; write postgres://user:password@host/database")
	}
	u, err := url.Parse(s.PublicURL)
	switch {
	case err != nil || u.Host == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "":
		fail("public_url: write the address people open, with no path: https://notes.example")
	case u.Scheme != "https" && (u.Scheme != "http" || !IsLoopback(u.Hostname())):
		fail("public_url: must be https; http is for a loopback address alone")
	}
	if _, err := s.mailer(); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// IsLoopback reports whether host is localhost or a loopback address.
func IsLoopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// mailer returns what sends invitations; nil if no mail server is set.
func (s *Settings) mailer() (mailer *orgs.Mailer, err error) {
	switch {
	case s.SMTPURL == "" && s.MailFrom != "":
		err = errors.New("mail_from: needs smtp_url beside it, the server that sends")
	case s.SMTPURL != "" && s.MailFrom == "":
		err = errors.New("smtp_url: needs mail_from beside it, such as noted <noted@example.com>")
	case s.SMTPURL != "":
		mailer, err = orgs.NewMailer(s.SMTPURL, s.MailFrom)
	}
	return mailer, err
}

// CheckLoopback refuses a listening address that others can reach, since `noted dev` has people without passwords.
func CheckLoopback(listen string) error {
	host, _, err := net.SplitHostPort(listen)
	if err != nil {
		return fmt.Errorf("listen: write host:port, such as 127.0.0.1:8080: %w", err)
	}
	if !IsLoopback(host) {
		return fmt.Errorf("listen: %s is reachable from other machines, and noted dev lets anybody sign in; use 127.0.0.1, or noted serve", listen)
	}
	return nil
}
