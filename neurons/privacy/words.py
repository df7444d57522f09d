"""Words that are nobody's name where a sentence would let them be: common words, medicine, eponyms."""

from __future__ import annotations

from typing import Final

ROMANISED_WORDS: Final = frozenset(
    """
    a about after again all am an and any are as ask at back bad be been before being better but by can cold cough day days did do
    doctor does eat feel feeling fever fine food for from get give go good great had has have he head heart help her here him his how
    i if in is it its just know last left leg less like lot man many may me medicine mild milan more morning much my new next night no
    not nothing now of ok okay old on once one only or other our out over pain please problem really right said same see severe she sick
    since sir skin sleep so some soon still stomach sugar take test than thank thanks that the their them then there they this time
    tired to today tomorrow tonight too two type under until up urgent us very want was we week weeks well were what when where which
    while who why will with work yes you your madam maam everyone anyone someone mother father son daughter brother sister wife husband
    ma mero meri malai timi tapai hajur ho hun hunu chha chhaina cha chaina lai le ko ki ka bata sanga pani ra tara dekhi samma aaja aja
    hijo bholi dukhcha dukhchha dukhyo dukheko jwaro khoki tauko pet ghau aushadhi ausadhi dabai khana pani din barsa barsha mahina hapta
    bhayo bhaeko bhayeko gareko garnu garne kasto kati kina kaha namaste namaskar dhanyabad doctor saheb saab sir dai didi bhai bahini
    birami hospital aspatal clinic check janch janchna ghar gaun thau maile malam runu lagyo lageko dherai thorai ali ekdam kun yo tyo yasto
    sadhai rati bihana beluka diuso pheri feri ajai aba haat khutta dhad chhati mutu pisab disa bakwas banta ulti rakta raktachap chini
    sabai aru aafno afno usko unko hamro timro naam nam umer barsako push man dhan asha maya kiran om puja dev sagar chandra sapana lal nar phul
    nepali lama mahat pant kul jit tek singh das puri ale pun sah jha ghar home house city town village bed work school hospital clinic pharmacy surgery birth
    """.split()
)
AMBIGUOUS: Final = frozenset(
    "maya milan asha kiran om puja dev sagar chandra sapana lal singh das puri sah jha lama pant ale pun मिलन सपना आशा माया".split()
)
"""Words that are names too: they count as one where a sentence announces a name, not by themselves."""
DEVANAGARI_WORDS: Final = frozenset(
    """
    म मेरो मेरी मेरा मलाई मैले हामी हाम्रो तपाईं तपाईंको हजुर उ उनी उनको उसको यो त्यो यस त्यस र तर पनि छ छन् छु छैन हो हुँ हुन् होइन
    थियो थिएँ भयो भएको भएकी भएका गर्छ गर्छु गरेको गरेका गर्ने गर्नु गर्न दुख्छ दुखेको दुख्यो दुखाइ ज्वरो खोकी टाउको पेट छाती मुटु खुट्टा
    हात ढाड घाँटी आँखा कान नाक दाँत औषधि औषधी खाना पानी दिन दिनदेखि हप्ता महिना वर्ष बर्ष वर्षको बर्षको वर्षीय आज हिजो भोलि अस्ति राति बिहान बेलुका
    दिउँसो अहिले धेरै थोरै अलि कति किन कसरी के कहाँ कुन कस्तो नेपाली नमस्ते नमस्कार धन्यवाद डाक्टर डा डाक्टरसाब साहेब सर नर्स बिरामी विरामी
    अस्पताल हस्पिटल क्लिनिक जाँच जाँचमा रगत रक्तचाप चिनी मधुमेह दम कृपया सल्लाह दिनुहोस् भन्नुहोस् नाम घर ठेगाना गाउँ सहर शहर टोल उमेर
    फोन नम्बर नं दर्ता फाइल गते साल मितिमा मिति जन्म जन्मे जन्मेको बाट देखि सम्म सँग लागि लाई ले को मा का की श्री श्रीमती सुश्री छोरा छोरी आमा बुबा
    बुवा बाबु दाइ दाजु दिदी भाइ बहिनी काका काकी साथी हजुरबुबा हजुरआमा श्रीमान् श्रीमान सबै अरू आफ्नो एक दुई तीन चार पाँच छ सात आठ नौ दस
    पटक पल्ट चोटि गोली चक्की मिलिग्राम खान खाने खाएको खाँदा बस्छु बस्ने बस्छ आउँछ आएको आएकी आयो गएको गयो हुन्छ हुन सक्छ सक्छु सक्दिन
    बढी कम राम्रो नराम्रो ठीक ठिक दायाँ बायाँ पछि अघि अगाडि पहिले फेरि पुन सधैं कहिले जस्तो यस्तो त्यस्तो नै नि होला लाग्छ लागेको लाग्यो
    चक्कर वाकवाकी बान्ता पखाला सुगर प्रेसर थाइराइड क्यान्सर एलर्जी गर्भवती बच्चा महिला पुरुष केटा केटी मान्छे मन मान धन फूल माया आशा भने
    भनेर भन्छन् अनि किनभने वा अथवा यदि भने पर्छ परेको पर्यो रिपोर्ट परीक्षण पासपोर्ट बिमा खाता नागरिकता कार्ड लाइसेन्स सिरियल गाडी बाइक मोटरसाइकल प्लेट
    इमेल वेबसाइट सम्पर्क गर्नुहोस् मोबाइल चाहिँ कृपया मद्दत सल्लाहको आवश्यकता मेसिन पेसमेकर बोल्दै लेख्दै बोल्दैछु लेख्दैछु नयाँ पुरानो ठूलो सानो
    किरण पूजा सपना सागर मिलन चन्द्र लाल मान धन फूल पुरी सिंह साह सबैलाई डाक्टरले दुखेर पर्‍यो घरमा गाउँमा सहरमा शहरमा अस्पतालमा अस्पतालको
    """.split()
) - {"किरण", "पूजा", "सागर", "चन्द्र", "पुरी", "सिंह", "साह"}  # fmt: skip

EPONYMS: Final = frozenset(
    """
    addison addisons alzheimer alzheimers apgar asperger babinski baker barrett barretts basedow behcet bell bells bishop bowen braden
    bright broca brown burkitt caesarean celsius chagas charcot child chiari cobb colles coombs cooper coumadin creutzfeldt crohn crohns cushing
    cushings doppler down downs duchenne dupuytren ehlers danlos epley epstein barr fahrenheit fallot fanconi foley framingham gaucher gilbert
    gilberts glasgow gleason goodpasture graham gram graves grave guillain barre hashimoto hashimotos heimlich henoch schonlein hirschsprung hodgkin
    hodgkins holter homans horner huntington huntingtons ishihara jakob kaposi kaplan meier kawasaki kegel kernig kleinfelter klinefelter koch
    korsakoff kussmaul lachman langerhans lewy lou gehrig lyme lynch mallory weiss marfan mantoux mcburney meniere menieres moro muir munchausen
    murphy murray myers nissen osgood schlatter osler paget pagets pap papanicolaou parkinson parkinsons peyronie pick pott prader raynaud raynauds
    reiter reye rinne romberg rorschach ruth salmonella salter sjogren sjogrens sjögren snellen southey spurling stevens johnson still sydenham takayasu tay
    sachs tourette tourettes trendelenburg turner turners tzanck valsalva virchow waldenstrom weber wegener wernicke wilms wilson wilsons wolff
    parkinson white zollinger ellison mr muscle monro bowman henle hepburn hippocrates dix hallpike phalen tinel rovsing ménière
    cheyne stokes bartholin cowper eustachian fallopian golgi purkinje ranvier schwann sertoli leydig wharton wood woods achilles
    """.split()
)
"""Of diseases, signs, tests and scales; nobody's name there."""

NOT_NAMES: Final = frozenset(
    """
    paracetamol ibuprofen aspirin metformin amoxicillin insulin warfarin omeprazole atorvastatin amlodipine losartan lisinopril salbutamol
    ventolin augmentin lasix lipitor zoloft prozac xanax valium viagra tylenol advil motrin aleve panadol calpol brufen flexon cetamol nims sinex
    strepsils vicks dettol savlon betadine lantus humalog ozempic wegovy mounjaro eliquis xarelto plavix zyrtec claritin benadryl nexium
    pantoprazole levothyroxine eltroxin thyronorm cipro azithromycin doxycycline prednisolone gabapentin pregabalin sertraline citalopram
    abdomen abdominal lung lungs liver kidney spine knee chest thyroid prostate uterus ovary colon mri ct ecg ekg eeg hiv aids ldl hdl hba1c bmi bp
    covid corona flu malaria dengue typhoid tuberculosis tb asthma copd gerd ibs pcos adhd autism diabetes diabetic hypertension migraine eczema
    psoriasis anemia anaemia arthritis gout stroke cancer sepsis uti std sti dvt gp er icu nhs cpr iud ivf pms ors vitamin b12 folate
    monday tuesday wednesday thursday friday saturday sunday christmas easter dashain tihar ramadan eid holi diwali teej chhath english nepali hindi
    newari maithili hindu muslim christian buddhist asian indian american british chinese european african
    nepal india china usa america uk britain england scotland wales ireland canada australia europe asia africa germany france japan qatar
    dubai malaysia kuwait bahrain oman saudi arabia israel korea thailand pakistan bangladesh bhutan russia ukraine
    namaste hello hi hey dear regards thanks thank sincerely sir madam maam doc doctor dr nurse patient mum mom dad mummy daddy
    mr mrs ms muscle sheen doctorsaab google facebook whatsapp viber youtube webmd internet messenger instagram mediterranean dash keto
    headache fever cough nausea vomiting dizzy dizziness tired rash itching swelling burning bleeding constipation diarrhea diarrhoea
    normal mild severe acute chronic urgent serious painful swollen sore allergic pregnant worse better
    """.split()
)
"""Drugs, organs, abbreviations, countries, days and greetings that the models take for names or places."""

REGIONS: Final = frozenset(
    """
    alabama alaska arizona arkansas california colorado connecticut delaware florida georgia hawaii idaho illinois indiana iowa kansas kentucky
    louisiana maine maryland massachusetts michigan minnesota mississippi missouri montana nebraska nevada ohio oklahoma oregon pennsylvania
    tennessee texas utah vermont virginia washington wisconsin wyoming
    """.split()
)
"""States: no smaller than what may stay."""
