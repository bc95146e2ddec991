#!/usr/bin/env bash
# All of the paper's studies but `sni`, on eighteen tasks with very short texts, six of them held out, and as little
# training as tells experts apart: some two hours of two cores on the embedded base.
#
#   experiments/paper_pilot.sh DIR INTO [MORE...]
#
# DIR holds Instruction Induction as JSON lines, with task_name, definition, input, output and split. MORE: further
# options of `lorary study`, as --workers 2. Interrupted, it resumes.
set -euo pipefail
data=${1:?usage: experiments/paper_pilot.sh DIR INTO [MORE...]}
into=${2:?where to}
shift 2

own=(
  active_to_passive antonyms first_word_letter larger_animal letters_list num_to_verbal
  sentiment singular_to_plural sum taxonomy_animal translation_en-de translation_en-fr
)
heldout=(diff negation rhymes second_word_letter synonyms translation_en-es)
options=()
for name in "${own[@]}" "${heldout[@]}"; do options+=(--only "$name"); done
for name in "${heldout[@]}"; do options+=(--heldout "$name"); done

studies=similarity,norms,upstream,clusters,zero_shot,adaptation,ablations,intrinsic_dimension
training=steps=16,batch_size=4,lr=3e-3,n_clusters=4,n_skills=4,n_train=64,epochs=1,new_steps=5,n_tries=20
scoring=limit=8,n_score=8,n_answer=8,n_score_new=16,n_answer_new=8,n_fit=16,max_new_tokens=16
few="n_pairs=8,k=4,ks=(1,4,12),shares=(1.0,0.1),ranks=(16,),sizes=(0.25,),top_k=(1,2),temperatures=(0.25,4.0),dimensions=(30,300)"
exec "${LORARY:-lorary}" study "paper:studies=($studies),$training,$scoring,$few" "$data" --into "$into" "${options[@]}" "$@"
