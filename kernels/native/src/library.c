/* What the Python side asks of the library as a whole. */
#include "export.h"

#ifndef XL_STAMP
#error "compile with compilation.py, which gives the stamp of the sources"
#endif

XL_API const char *xl_version(void);

/* Compared with the sources that lie beside the library: one of another version is not used. */
const char *xl_version(void) { return XL_STAMP; }
