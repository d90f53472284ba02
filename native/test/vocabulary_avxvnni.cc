#include "simd/avxvnni.h"

#include "test/vocabulary.h"

namespace openwork::test {

extern const Vocabulary kAvxVnniVocabulary = vocabulary_of<AvxVnni>();

}  // namespace openwork::test
