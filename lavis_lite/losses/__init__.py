"""Training losses: functions over tensors, and registered modules that ask a step's view for them.

==================  ==========================================  ==========================
file                functions                                   registered
==================  ==========================================  ==========================
``contrastive``     ``info_nce``, ``soft_itc``                  ``info_nce``, ``itc``
``sigmoid``         ``pairwise_sigmoid``                        ``sigmoid``
``matching``        ``itm_cross_entropy``, ``draw_negatives``   ``itm``
``language``        ``lm_cross_entropy``, ``next_tokens``       ``lm``
``masking``         ``mlm_cross_entropy``, ``mask_words``       ``mlm``
``answers``         ``weigh_answers``                           ``answer_lm``
``classification``  ``cross_entropy.distilled_cross_entropy``   ``classification``
==================  ==========================================  ==========================

``shared`` is the step's view, ``step_info`` its place in the run, ``queue`` the features of earlier
batches, ``gradient_cache`` large contrastive batches in little memory.
"""
