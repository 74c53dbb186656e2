package e2e

import (
	"context"
	"os/exec"
	"testing"
	"time"

	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"
)

// window is one person's Chromium window, with its own cookies.
type window struct{ ctx context.Context }

// chromium starts a headless Chromium.
func chromium(t *testing.T) (open func(t *testing.T) window) {
	t.Helper()
	var path string
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if found, err := exec.LookPath(name); err == nil && path == "" {
			path = found
		}
	}
	if path == "" {
		missing(t, "chromium", "there is no chromium; Debian has it in chromium")
	}
	allocator, cancel := chromedp.NewExecAllocator(context.Background(), append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path),
		// The test's proxy has its own certificate; root has no sandbox; only the loopback is used.
		chromedp.IgnoreCertErrors, chromedp.NoSandbox, chromedp.Flag("no-proxy-server", true), chromedp.Flag("host-resolver-rules", "MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"))...)
	t.Cleanup(cancel)
	first, cancelFirst := chromedp.NewContext(allocator)
	t.Cleanup(cancelFirst)
	if err := chromedp.Do(first); err != nil {
		t.Fatalf("%s does not start: %v", path, err)
	}
	return func(t *testing.T) window {
		t.Helper()
		ctx, cancel := chromedp.NewContext(first, chromedp.WithNewBrowserContext())
		t.Cleanup(cancel)
		window{ctx}.browse(t) // opens it; the timeout must not apply to the browser
		ctx, cancelTime := context.WithTimeout(ctx, time.Minute)
		t.Cleanup(cancelTime)
		return window{ctx}
	}
}

// browse runs actions in a window; if one fails, the test ends with the page's text.
func (w window) browse(t *testing.T, actions ...chromedp.Action[chromedp.Void]) {
	t.Helper()
	if err := chromedp.Do(w.ctx, actions...); err != nil {
		address, text := w.page()
		t.Fatalf("%v; the page at %s shows %q", err, address, text)
	}
}

// page returns the address and the visible text of a window.
func (w window) page() (address, text string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(w.ctx), 5*time.Second)
	defer cancel()
	address, _ = chromedp.Run(ctx, chromedp.Location())
	text, _ = chromedp.Run(ctx, chromedp.Text(chromedp.CSS("body")))
	return address, text
}

func shows(selector string) chromedp.Action[chromedp.Void] {
	return chromedp.WaitVisible(chromedp.CSS(selector))
}

func click(selector string) chromedp.Action[chromedp.Void] {
	return chromedp.Click(chromedp.CSS(selector))
}

// sessionOf returns the session's token in a window's cookies; empty if there is none.
func (s *site) sessionOf(t *testing.T, w window) (token string) {
	t.Helper()
	cookies, err := chromedp.Call(w.ctx, network.GetCookies, network.GetCookiesParams{URLs: []string{s.public}})
	if err != nil {
		t.Fatal(err)
	}
	for _, cookie := range cookies.Cookies {
		if cookie.Name == sessionCookie {
			if token = cookie.Value; !cookie.HTTPOnly || !cookie.Secure || cookie.SameSite != network.CookieSameSiteLax {
				t.Errorf("the session's cookie is %+v", cookie)
			}
		}
	}
	return token
}
