#include "textflag.h"

// func out(port uint16, data []byte)
TEXT ·out(SB), NOSPLIT, $0-32
	MOVW port+0(FP), DX
	MOVQ data_base+8(FP), SI
	MOVQ data_len+16(FP), CX
	CLD
	REP; OUTSB
	RET
