// Package selinux is the kind of SELinux policy modules in CIL: read as
// s-expressions, judged by a closed grammar, and compared by meaning.
//
// Two words tell apart what is wrong with a payload:
//
//   - ProfileInvalid is for what is no CIL, or more than the bounds allow: bytes
//     outside UTF-8, characters that do not show, parentheses that do not match,
//     text outside of parentheses, no statement at all, a statement without a
//     keyword, and a block declared twice. Parse finds it, at line and column.
//   - ProfileForbidden is for CIL that says what a profile may not say. Parse
//     accepts it, so that lint can show why it is forbidden; Constrain judges.
//
// The closed grammar, and nothing outside of it, is
//
//	profile = (block NAME statement...)
//	statement = (blockinherit TEMPLATE)
//	          | (allow process TARGET (CLASS (PERMISSION...)))
//
// with `container` inherited exactly once, since that is the template which
// declares the type `process`: without it the name would be looked up outside
// of the block. TARGET is self, process, socket (the types `container`
// declares) or a type that every policy lists. Names are letters, digits and
// underscores; none is quoted and none has a dot.
//
// The package is pure Go and never touches a kernel or a compiler.
package selinux
