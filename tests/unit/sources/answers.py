"""Answers of the four services. None is recorded: there was no network. Each is written after the service's documentation
(named at it), with texts of our own, so they prove how that format is read and not that a service still answers so."""

from __future__ import annotations

import json

# https://medlineplus.gov/about/developers/webservices/ (output: nlmSearchResult, list, document, content)
MEDLINEPLUS = """<?xml version="1.0" encoding="UTF-8"?>
<nlmSearchResult><term>fever</term><file>viv_1</file><server>pvlb7srch16</server><count>1</count><retstart>0</retstart><retmax>1</retmax>
<list num="1" start="0" per="1"><document rank="0" url="https://medlineplus.gov/fever.html">
<content name="title">&lt;span class="qt0"&gt;Fever&lt;/span&gt;</content><content name="organizationName">National Library of Medicine</content>
<content name="FullSummary">&lt;p&gt;A &lt;span class="qt0"&gt;fever&lt;/span&gt; is a body temperature that is higher than normal.&lt;/p&gt;&lt;ul&gt;&lt;li&gt;Babies under 3 months&lt;/li&gt;&lt;/ul&gt;</content>
</document></list></nlmSearchResult>"""
MEDLINEPLUS_NONE = "<nlmSearchResult><term>zebra</term><count>0</count></nlmSearchResult>"

# https://open.fda.gov/apis/drug/label/searchable-fields/ and /apis/anatomy-of-a-response/
SET_ID = "0a1b2c3d-0000-4000-8000-0123456789ab"
OPENFDA = json.dumps({
    "meta": {"disclaimer": "…", "last_updated": "2026-01-01", "results": {"skip": 0, "limit": 5, "total": 1}},
    "results": [{
        "set_id": SET_ID, "effective_time": "20240501", "openfda": {"generic_name": ["IBUPROFEN"], "brand_name": ["EXAMPLE"]},
        "pregnancy": ["Ibuprofen from week 20 of pregnancy on can hurt the unborn baby's kidneys."], "overdosage": ["Call poison control."],
    }],
})  # fmt: skip

# https://www.ncbi.nlm.nih.gov/books/NBK25499/ (ESearch with retmode=json, EFetch of PubMed)
ESEARCH = json.dumps(
    {
        "header": {"type": "esearch", "version": "0.3"},
        "esearchresult": {"count": "1", "retmax": "1", "retstart": "0", "idlist": ["123456"]},
    }
)
EFETCH = """<?xml version="1.0" ?><!DOCTYPE PubmedArticleSet PUBLIC "-//NLM//DTD PubMedArticle, 1st January 2025//EN" "https://dtd.nlm.nih.gov/ncbi/pubmed/out/pubmed_250101.dtd">
<PubmedArticleSet><PubmedArticle><MedlineCitation><PMID Version="1">123456</PMID><Article><Journal><JournalIssue><PubDate><Year>2021</Year><Month>Mar</Month></PubDate></JournalIssue></Journal>
<ArticleTitle>Fever in <i>babies</i>.</ArticleTitle><Abstract><AbstractText Label="METHODS">We followed 100 babies with fever.</AbstractText><AbstractText>Most had a virus.</AbstractText></Abstract></Article></MedlineCitation></PubmedArticle></PubmedArticleSet>"""

# https://lhncbc.nlm.nih.gov/RxNav/APIs/api-RxClass.getClassByRxNormDrugName.html
RXNAV = json.dumps({
    "userInput": {"relaSource": "MEDRT", "relas": "ALL", "drugName": "ibuprofen"},
    "rxclassDrugInfoList": {"rxclassDrugInfo": [
        {"minConcept": {"rxcui": "5640", "name": "ibuprofen", "tty": "IN"}, "rela": rela, "relaSource": "MEDRT",
         "rxclassMinConceptItem": {"classId": "D1", "className": name, "classType": "DISEASE"}}
        for rela, name in (("CI_with", "Asthma"), ("CI_with", "Peptic Ulcer"), ("may_treat", "Fever"))
    ]},
})  # fmt: skip
