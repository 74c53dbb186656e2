package web

import (
	"errors"
	"net/http"
	"strings"

	"github.com/go-chi/chi/v5"

	"noted/authz"
	"noted/identity"
	"noted/internal/problem"
	"noted/internal/request"
	"noted/orgs"
)

// invitations is the page /invitation. An invitation's token is in its link's fragment, which no
// browser sends. The page's script posts it, or the person pastes it.
type invitations struct {
	users *identity.Service
	orgs  *orgs.Service
}

// invitationPage is its content: how to sign in, a field for the token, or the token's offer.
type invitationPage struct {
	Principal          *authz.Principal
	Providers          []identity.ProviderItem
	Token              string
	Offer              *orgs.Offer
	Message, RequestID string // why there is no offer
}

func (i invitations) mount(router chi.Router, api *authz.API) {
	router.Get("/invitation", func(w http.ResponseWriter, r *http.Request) {
		i.show(w, http.StatusOK, invitationPage{Principal: i.users.Peek(r), Providers: i.users.Providers()})
	})
	api.DeclarePage(http.MethodPost, "/invitation", orgs.InvitationAccept)
	router.With(i.users.Authenticate).Post("/invitation", identity.BySession(orgs.InvitationAccept, i.users.Forms(http.HandlerFunc(i.post)).ServeHTTP))
}

func (i invitations) show(w http.ResponseWriter, status int, p invitationPage) {
	w.Header().Set("Content-Security-Policy", scriptCSP)
	page(w, status, render("invitation", p))
}

// post shows what the token's invitation offers, or with join accepts it. Every token that does not
// count gets the same answer.
func (i invitations) post(w http.ResponseWriter, r *http.Request) {
	form, err := identity.ReadForm(r)
	if err != nil {
		problem.Write(w, r, err)
		return
	}
	p := invitationPage{Principal: authz.From(r.Context()), Token: tokenIn(form.Get("token"))}
	if form.Has("join") {
		if _, _, err = i.orgs.Accept(r.Context(), orgs.Token(p.Token)); err == nil {
			w.Header().Set("Location", "/")
			w.Header().Set("Cache-Control", "no-store")
			w.WriteHeader(http.StatusSeeOther)
			return
		}
	} else {
		var offer orgs.Offer
		if offer, err = i.orgs.Look(r.Context(), orgs.Token(p.Token)); err == nil {
			p.Offer = &offer
			i.show(w, http.StatusOK, p)
			return
		}
	}
	var refused *problem.Error
	if !errors.As(err, &refused) || refused.Status != http.StatusNotFound || !request.AcceptsHTML(r) {
		problem.Write(w, r, err)
		return
	}
	p.Message, p.RequestID = "This invitation does not count: it was used or revoked, it has expired, or it is for another e-mail than yours.", request.From(r.Context()).ID
	i.show(w, refused.Status, p)
}

// tokenIn is the token in what a person pasted: the whole link or only the token.
func tokenIn(pasted string) string {
	pasted = strings.TrimSpace(pasted)
	if len(pasted) > 2048 {
		return ""
	}
	return pasted[strings.LastIndexByte(pasted, '#')+1:]
}
