/* What Python may call. Everything else is hidden, so that calls inside the library are direct. */
#ifndef XL_EXPORT_H
#define XL_EXPORT_H

#define XL_API __attribute__((visibility("default")))

#endif
