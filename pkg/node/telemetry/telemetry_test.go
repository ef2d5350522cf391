package telemetry

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/confine-dev/confine/pkg/node/agent"
	"github.com/confine-dev/confine/pkg/node/status"
	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/reason"
)

func get(t *testing.T, h http.Handler, path string) (int, string) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil))
	return w.Code, w.Body.String()
}

func TestHealth(t *testing.T) {
	synced := false
	told := New(func() bool { return synced })
	now := time.Now()
	told.now = func() time.Time { return now }
	want := func(path string, code int) {
		t.Helper()
		if got, body := get(t, told.Health(), path); got != code {
			t.Errorf("%s answers %d %q, want %d", path, got, body, code)
		}
	}
	want("/healthz", http.StatusOK) // it has just begun
	want("/readyz", http.StatusServiceUnavailable)
	synced = true
	want("/readyz", http.StatusServiceUnavailable)
	told.Notify(agent.StateAlive)
	want("/readyz", http.StatusServiceUnavailable)
	told.Notify(agent.StateReady)
	want("/readyz", http.StatusOK)
	now = now.Add(silence + time.Second)
	want("/healthz", http.StatusServiceUnavailable)
	told.Notify(agent.StateAlive)
	want("/healthz", http.StatusOK)
	synced = false
	want("/readyz", http.StatusServiceUnavailable)
	want("/metrics", http.StatusNotFound)
}

func TestMetrics(t *testing.T) {
	told := New(func() bool { return true })
	condition := func(c status.ConditionType, s status.State, r reason.Reason) status.Condition {
		return status.Condition{Type: c, Status: s, Reason: r}
	}
	refused := status.Profile{Owner: profile.Owner{Namespace: "web", Name: "secret-name"}, Origin: "x", Conditions: []status.Condition{
		condition(status.Verified, status.False, reason.SignatureMissing), condition(status.Ready, status.False, reason.SignatureMissing)}}
	good := status.Profile{Origin: "y", Conditions: []status.Condition{
		condition(status.Verified, status.True, status.Signed), condition(status.Ready, status.True, status.Installed)}}
	told.Report(status.Report{Profiles: []status.Profile{refused, good, good, {}}}, false)
	told.Pulled(nil)
	told.Pulled(reason.New(reason.SignatureMissing, "registry.example.com/secret-repository", "x"))
	_, body := get(t, told.Metrics(), "/metrics")
	for _, want := range []string{
		`confine_agent_profiles{state="Installed"} 2`, `confine_agent_profiles{state="Failed"} 1`,
		`confine_agent_profiles{state="Pending"} 0`, `confine_agent_profiles{state="Removing"} 1`,
		`confine_agent_profiles_not_as_wanted{reason="SignatureMissing"} 1`,
		`confine_agent_pulls_total{result="Pulled"} 1`, `confine_agent_pulls_total{result="SignatureMissing"} 1`,
		`confine_agent_synced 1`, `confine_agent_last_pass_timestamp_seconds`, `go_memstats_heap_alloc_bytes`,
	} {
		if !strings.Contains(body, want+"\n") && !strings.Contains(body, "\n"+want+" ") {
			t.Errorf("there is no %s", want)
		}
	}
	if strings.Contains(body, "secret-") {
		t.Error("a label names a profile or a repository")
	}
	told.Report(status.Report{Profiles: []status.Profile{good}}, false)
	if _, body = get(t, told.Metrics(), "/metrics"); strings.Contains(body, `not_as_wanted{`) {
		t.Error("a reason that is over is still told")
	}
}

func TestAddressThatIsTakenIsServedOnceItIsFree(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	taken, err := Listen(ctx, "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := taken.Addr().String()
	refused := make(chan struct{}, 1)
	log := slog.New(slog.NewTextHandler(writerFunc(func(p []byte) (int, error) {
		select {
		case refused <- struct{}{}:
		default:
		}
		return len(p), nil
	}), nil))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		ServeWhenFree(ctx, address, http.NotFoundHandler(), log)
	}()
	<-refused
	if err := taken.Close(); err != nil {
		t.Fatal(err)
	}
	for {
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", address)
		if err == nil {
			_ = conn.Close()
			break
		}
		if t.Context().Err() != nil {
			t.Fatal("it is never served")
		}
		time.Sleep(10 * time.Millisecond) // until it is tried again
	}
	stop()
	<-ended
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func TestServeEndsWithItsContext(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	l, err := Listen(ctx, "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(ctx, l.Addr().String()); err == nil {
		t.Error("an address was given twice")
	} else if e, ok := reason.Of(err); !ok || e.Reason != reason.InstallFailed {
		t.Errorf("got %v", err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		Serve(ctx, l, New(func() bool { return true }).Health(), slog.New(slog.DiscardHandler))
	}()
	client := &http.Client{Transport: &http.Transport{}, Timeout: time.Minute}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+l.Addr().String()+"/healthz", nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(response.Body)
	if err != nil || string(body) != "ok\n" {
		t.Errorf("got %q, %v", body, err)
	}
	_ = response.Body.Close()
	stop()
	<-ended
	if _, err := client.Do(request); err == nil {
		t.Error("it still answers")
	}
}
