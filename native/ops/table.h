// The operators of one instruction set.
#pragma once

#include "kernels/peak_args.h"
#include "ops/arguments.h"
#include "ops/image_arguments.h"
#include "ops/table_arguments.h"

namespace openwork {

struct OperatorTable {
#define OPENWORK_OP(op, Arguments) void (*op)(const Arguments&, int64_t begin, int64_t end);
#include "kernels/table.inc"
#undef OPENWORK_OP
};

}  // namespace openwork
