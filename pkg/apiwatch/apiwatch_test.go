package apiwatch_test

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"

	"github.com/confine-dev/confine/pkg/apiwatch"
)

func forbidden() error {
	return apierrors.NewForbidden(schema.GroupResource{Resource: "nodes"}, "", errors.New("no role"))
}

func missing() error { return apierrors.NewNotFound(schema.GroupResource{Resource: "nodes"}, "") }

// server is an API server with one object. It knows no streaming lists. All runs
// in one bubble, at the bubble's time.
type server struct {
	mu     sync.Mutex
	fails  func() error // of a list or the begin of a watch; nil for none
	deaf   bool         // watches deliver nothing and end in time
	stuck  bool         // watches deliver nothing and never end
	object *corev1.Node

	lists, watches int
	last           time.Time       // the last request
	longest        time.Duration   // pause between two requests
	lasted         []time.Duration // how long each watch was asked to last
}

// with lets f read or change s.
func (s *server) with(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

func (s *server) asked() {
	if !s.last.IsZero() {
		s.longest = max(s.longest, time.Since(s.last))
	}
	s.last = time.Now()
}

func (s *server) List(context.Context, metav1.ListOptions) (runtime.Object, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lists++
	s.asked()
	if s.fails != nil {
		if err := s.fails(); err != nil {
			return nil, err
		}
	}
	return &corev1.NodeList{ListMeta: metav1.ListMeta{ResourceVersion: s.object.ResourceVersion}, Items: []corev1.Node{*s.object}}, nil
}

func (s *server) Watch(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if options.SendInitialEvents != nil && s.fails == nil {
		return nil, apierrors.NewInvalid(schema.GroupKind{Kind: "ListOptions"}, "", nil)
	}
	s.watches++
	s.asked()
	if s.fails != nil {
		if err := s.fails(); err != nil {
			return nil, err
		}
	}
	w := watch.NewFakeWithChanSize(1, false)
	if s.stuck {
		go func() { <-ctx.Done(); w.Stop() }()
		return w, nil
	}
	if !s.deaf && s.object.ResourceVersion != options.ResourceVersion {
		w.Modify(s.object.DeepCopy())
	}
	lasts := time.Duration(*options.TimeoutSeconds) * time.Second
	s.lasted = append(s.lasted, lasts)
	go func() {
		select {
		case <-ctx.Done():
		case <-time.After(lasts):
		}
		w.Stop()
	}()
	return w, nil
}

func (s *server) change(version string) {
	s.object = &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "a", ResourceVersion: version}}
}

// watched runs an informer on s, as the controller has them, and returns what
// tells the version that it knows.
func watched(t *testing.T, s *server) func() string {
	t.Helper()
	s.with(func() { s.change("1") })
	lw := &cache.ListWatch{ListWithContextFunc: s.List, WatchFuncWithContext: s.Watch}
	informer := cache.NewSharedIndexInformer(apiwatch.Patient(lw, "nodes", slog.New(slog.DiscardHandler)), &corev1.Node{}, 0, nil)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); informer.RunWithContext(ctx) }()
	t.Cleanup(func() { cancel(); <-ended })
	return func() string {
		synctest.Wait()
		object, ok, err := informer.GetStore().GetByKey("a")
		if err != nil || !ok {
			return ""
		}
		return object.(*corev1.Node).ResourceVersion
	}
}

// within waits until known is want, and fails where that takes longer than most.
func within(t *testing.T, most time.Duration, known func() string, want string) {
	t.Helper()
	for start := time.Now(); known() != want; time.Sleep(100 * time.Millisecond) {
		if time.Since(start) > most {
			t.Fatalf("after %s the version known is %q, want %q", most, known(), want)
		}
	}
}

// TestOutageEnds holds that a change is seen soon after an outage, however long
// that was and whatever was the answer meanwhile. By itself an informer takes 30
// to 60 s.
func TestOutageEnds(t *testing.T) {
	tests := map[string]error{
		"refused":       syscall.ECONNREFUSED,
		"reset":         syscall.ECONNRESET,
		"forbidden":     forbidden(),
		"unauthorized":  apierrors.NewUnauthorized("who"),
		"busy":          apierrors.NewTooManyRequests("later", 0),
		"unavailable":   apierrors.NewServiceUnavailable("starting"),
		"no definition": missing(),
	}
	for name, err := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &server{fails: func() error { return err }}
				known := watched(t, s)
				time.Sleep(5 * time.Minute)
				if got := known(); got != "" {
					t.Fatalf("version %s is known of a server that is away", got)
				}
				s.with(func() {
					if requests := s.lists + s.watches; requests > 60 {
						t.Errorf("%d requests in 5 minutes", requests)
					}
					if most := 20 * time.Second; s.longest > most {
						t.Errorf("a pause of %s, want %s at most", s.longest, most)
					}
					s.fails = nil
				})
				within(t, 21*time.Second, known, "1")
			})
		})
	}
}

// TestForbiddenOnceMore holds it for a watch that ran before: the server refuses
// connections, forbids once, and is there.
func TestForbiddenOnceMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{}
		known := watched(t, s)
		within(t, time.Second, known, "1")
		var lists int
		s.with(func() {
			lists = s.lists
			s.fails = func() error { return syscall.ECONNREFUSED }
		})
		time.Sleep(25 * time.Minute) // the watch of before has ended
		s.with(func() {
			if s.watches < 3 {
				t.Fatalf("%d watches: there was no outage", s.watches)
			}
			s.change("2")
			told := false
			s.fails = func() error {
				if told {
					return nil
				}
				told = true
				return forbidden()
			}
		})
		within(t, 25*time.Second, known, "2")
		s.with(func() {
			if s.lists != lists {
				t.Errorf("%d lists, where a watch can go on", s.lists-lists)
			}
		})
	})
}

// TestDeafWatch holds that what the first watch after an outage does not deliver
// is known a minute later, also where the server forgets to end that watch.
func TestDeafWatch(t *testing.T) {
	tests := map[string]struct {
		server *server
		most   time.Duration
	}{
		"ends in time": {&server{deaf: true}, 61 * time.Second},
		"never ends":   {&server{stuck: true}, 80 * time.Second},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				known := watched(t, test.server)
				within(t, time.Second, known, "1")
				test.server.with(func() {
					test.server.deaf, test.server.stuck = false, false
					test.server.change("2")
				})
				within(t, test.most, known, "2")
			})
		})
	}
}

// TestGrows holds that watches cost no more than they did once all is well, and
// that an outage makes them short again.
func TestGrows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{}
		known := watched(t, s)
		time.Sleep(2 * time.Hour)
		within(t, time.Second, known, "1")
		var before int
		s.with(func() {
			least, most := 30*time.Second, 60*time.Second
			for i, lasted := range s.lasted {
				if lasted < min(least, 5*time.Minute)-time.Second || lasted > min(most, 10*time.Minute) {
					t.Errorf("watch %d lasted %s, want %s to %s", i, lasted, least, most)
				}
				least, most = 2*least, 2*most
			}
			if s.lists != 1 {
				t.Errorf("%d lists in 2 hours, want 1", s.lists)
			}
			before = len(s.lasted)
			s.fails = func() error { return syscall.ECONNREFUSED }
		})
		time.Sleep(15 * time.Minute)
		s.with(func() { s.fails = nil })
		time.Sleep(30 * time.Second)
		s.with(func() {
			if len(s.lasted) == before || s.lasted[before] > time.Minute {
				t.Errorf("after an outage watches last %s, want a minute at most", s.lasted[before:])
			}
		})
	})
}

// TestHandsOn holds that what only the reflector can mend reaches it at once.
func TestHandsOn(t *testing.T) {
	from, all := metav1.ListOptions{ResourceVersion: "7"}, true
	tests := map[string]struct {
		err     error
		options metav1.ListOptions
	}{
		"too old":                {apierrors.NewResourceExpired("old"), from},
		"too new":                {tooNew(), from},
		"not understood":         {apierrors.NewBadRequest("what"), from},
		"no streaming list":      {apierrors.NewInvalid(schema.GroupKind{}, "", nil), metav1.ListOptions{SendInitialEvents: &all}},
		"gone with its versions": {missing(), from},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &server{fails: func() error { return test.err }}
				lw := &cache.ListWatch{ListWithContextFunc: s.List, WatchFuncWithContext: s.Watch}
				patient := cache.ToListerWatcherWithContext(apiwatch.Patient(lw, "nodes", slog.New(slog.DiscardHandler)))
				start := time.Now()
				if _, err := patient.WatchWithContext(t.Context(), test.options); !errors.Is(err, test.err) {
					t.Errorf("error %v, want %v", err, test.err)
				}
				if took := time.Since(start); took != 0 {
					t.Errorf("it took %s", took)
				}
			})
		})
	}
}

func tooNew() error {
	err := apierrors.NewTimeoutError("too new", 1)
	err.ErrStatus.Details.Causes = []metav1.StatusCause{{Type: metav1.CauseTypeResourceVersionTooLarge}}
	return err
}
