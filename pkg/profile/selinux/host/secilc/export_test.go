package secilc

// WithProgram puts another program into the compiler's place.
func WithProgram(c *Compiler, path string) *Compiler {
	c.program = path
	return c
}
