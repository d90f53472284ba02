// Every operator. Included only by the instruction sets' own translation units: everything is a template over the
// vocabulary V, so no two of them share a symbol.
#pragma once

#include "ops/attention.h"
#include "ops/binary.h"
#include "ops/copy_rows.h"
#include "ops/elementwise.h"
#include "ops/embedding_bag.h"
#include "ops/embedding_sum.h"
#include "ops/finish_sums.h"
#include "ops/group_norm.h"
#include "ops/image_pooling.h"
#include "ops/interaction.h"
#include "ops/layer_norm.h"
#include "ops/pooling.h"
#include "ops/run_scales.h"
#include "ops/softmax.h"
#include "ops/transpose.h"
