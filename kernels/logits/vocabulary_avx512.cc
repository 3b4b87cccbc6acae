#include "kernels/logits/vocabulary_loops_text.h"

namespace invar {

const VocabularyLoops kVocabularyLoopsAvx512 = kTable;

}  // namespace invar
